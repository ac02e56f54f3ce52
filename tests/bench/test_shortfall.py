"""What keeps T2o from its ideal: planted dilation, planted idle, and what a profile cannot explain."""

from dataclasses import replace
from pathlib import Path

import kept_profile
import pytest
import synthetic
import timelines

from bench import report
from bench.cases import Case
from bench.deciding.decompose import Bounds, Decomposition, LaneTimes
from bench.profiling.kept import Kept, Profiled
from bench.profiling.shortfall import Shortfall, shortfalls
from bench.render import document, shortfall, terminal
from bench.render.printing import show
from bench.timeline.analysis import measure
from bench.timeline.attribute import attribute
from bench.timeline.strip import strip
from bench.units import format_percent
from moe_impl.options import Variant

UNIT_S = 1e-9
"""Timelines by hand count nanoseconds."""
MICRO_BATCHES = (0, 1)


def serial(gemm: int = 100, transfer: int = 20) -> list[timelines.Op]:
    """T2s: all stages of one micro-batch after the other."""
    ops, at = [], 1000
    for stage, length in (("dispatch", transfer), ("gemm1", gemm), ("combine", transfer)):
        for ubatch in MICRO_BATCHES:
            ops.append((stage, ubatch, at, at + length, at - 500))
            at += length
    return ops


def overlapped(gemm: int = 100, transfer: int = 20, late: int = 0) -> list[timelines.Op]:
    """T2o: dispatch and combine beside the other micro-batch's gemm1, the second of which starts ``late``."""
    first, second = 1000 + transfer, 1000 + transfer + gemm + late
    begins = {
        "dispatch": (1000, first),
        "gemm1": (first, second),
        "combine": (first + gemm, max(second + gemm, first + gemm + transfer)),
    }
    lengths = {"dispatch": transfer, "gemm1": gemm, "combine": transfer}
    issued = [(stage, ubatch, begin[ubatch]) for stage, begin in begins.items() for ubatch in MICRO_BATCHES]
    return [
        (stage, ubatch, at, at + lengths[stage], 500 + 5 * index) for index, (stage, ubatch, at) in enumerate(issued)
    ]


CASE: Case = kept_profile.case()
_, T2S, T2O = CASE.variants
IDEAL = 20 + 200 + 20
"""The first dispatch, both gemm1, the last combine."""
WHY = Decomposition(
    t1_s=260 * UNIT_S,
    t2s_s=280 * UNIT_S,
    t2o_s=IDEAL * UNIT_S,
    t2s_lanes=LaneTimes(200 * UNIT_S, 80 * UNIT_S),
    bounds=Bounds(IDEAL * UNIT_S, "vllm", (IDEAL + 7) * UNIT_S, None),
)


def profiled(variant: Variant, ops: list[timelines.Op]) -> Profiled:
    found = attribute(timelines.profile(ops))
    return Profiled(variant, "by hand", measure("", found), strip(found))


def kept(on: list[timelines.Op], split: list[timelines.Op] | None = None) -> Kept:
    return Kept(CASE, "torch", "", (profiled(T2S, split or serial()), profiled(T2O, on)), folder="by-hand")


def found(profile: Kept, took: int, why: Decomposition = WHY) -> Shortfall:
    """Of a T2o that took so long when it was timed."""
    (one,) = shortfalls([profile], {(CASE.case_id, T2O): replace(why, t2o_s=took * UNIT_S)})
    return one


def in_units(seconds: float) -> float:
    return pytest.approx(seconds * UNIT_S, abs=0.01 * UNIT_S)


def test_a_run_at_its_ideal_has_nothing_to_explain() -> None:
    one = found(kept(overlapped()), IDEAL)
    assert (one.gap_s, one.dilation_s, one.idle_s, one.remainder_s) == (in_units(0),) * 4
    assert (one.lane, one.explained) == ("compute", True)


def test_planted_dilation_is_found_stage_by_stage() -> None:
    one = found(kept(overlapped(gemm=115)), IDEAL + 30)
    assert (one.dilation_s, one.idle_s, one.remainder_s) == (in_units(30), in_units(0), in_units(0))
    assert one.stages[0] == ("gemm1", in_units(30))
    assert one.explained


def test_planted_idle_is_found_and_what_the_ideal_idles_is_not_part_of_it() -> None:
    one = found(kept(overlapped(late=25)), IDEAL + 25)
    assert (one.dilation_s, one.idle_s, one.remainder_s) == (in_units(0), in_units(25), in_units(0))
    assert one.order_s == in_units(7)
    assert one.explained


def test_both_add_up() -> None:
    one = found(kept(overlapped(gemm=110, late=10)), IDEAL + 30)
    assert (one.dilation_s, one.idle_s, one.remainder_s) == (in_units(20), in_units(10), in_units(0))


@pytest.mark.parametrize(("took", "explained"), [(IDEAL + 10, True), (IDEAL + 15, False), (IDEAL - 15, False)])
def test_what_the_profile_does_not_show_remains(took: int, explained: bool) -> None:
    one = found(kept(overlapped()), took)
    assert one.remainder_s == in_units(took - IDEAL)
    assert one.explained is explained, "5 % of T2o is 12"


def test_communication_may_be_the_critical_lane() -> None:
    ideal = 4 * 150 + 10
    why = replace(
        WHY, t2s_lanes=LaneTimes(20 * UNIT_S, 600 * UNIT_S), bounds=Bounds(ideal * UNIT_S, "vllm", ideal * UNIT_S, None)
    )
    one = found(kept(serial(10, 155), serial(10, 150)), 640, why)
    assert (one.lane, one.dilation_s) == ("comm", in_units(20))
    assert one.idle_s == in_units(10), "both gemm1 ran beside no transfer, in the ideal one of them"
    assert {stage for stage, _ in one.stages} == {"dispatch", "combine"}


@pytest.mark.parametrize(
    "why",
    [None, replace(WHY, bounds=None), replace(WHY, stages_perturbed=True), replace(WHY, t2s_lanes=None)],
    ids=["not timed", "no ideal", "a doubtful stage pass", "no lanes"],
)
def test_without_a_sound_ideal_nothing_is_said(why: Decomposition | None) -> None:
    assert shortfalls([kept(overlapped())], {(CASE.case_id, T2O): why}) == []


def test_without_its_t2s_nothing_is_said() -> None:
    alone = replace(kept(overlapped()), profiled=(profiled(T2O, overlapped()),))
    assert shortfalls([alone], {(CASE.case_id, T2O): WHY}) == []


def test_report_compare_and_json_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept_profile.plant(tmp_path)
    trials = synthetic.Builder(passes=2, pairs=2).trials([CASE])
    model = report.build(synthetic.StubRun(trials, path=tmp_path))
    (one,) = model.shortfalls
    assert (one.variant, one.tool, one.lane) == (T2O, "torch", "comm")
    shown = shortfall.table(one)
    assert [row[0] for row in shown.rows][:3] == ["T2o, timed", "ideal", "T2o - ideal"]
    assert shown.rows[-1][0] == "remainder"
    assert shown.notes[0].startswith("Not explained: the remainder is "), "made-up times beside a real trace"
    assert f" of T2o ({format_percent(abs(one.remainder_s / one.gap_s))} of the distance), " in shown.notes[0]
    (line,) = shortfall.lines(model)
    show(terminal.summary(model))
    assert "From the ideal to T2o, by timelines" in capsys.readouterr().out
    assert "8192 tokens: " in line
    (told,) = document.document(model)["shortfalls"]
    assert told["gap_s"] == pytest.approx(told["dilation_s"] + told["idle_s"] + told["remainder_s"])
    shares = {name.removesuffix("_share"): told[name] for name in told if name.endswith("_share")}
    assert set(shares) == {"ideal", "gap", "dilation", "idle", "starved", "remainder"}
    assert shares == pytest.approx({name: told[f"{name}_s"] / told["t2o_s"] for name in shares})
    assert sum(told["stage_shares"].values()) == pytest.approx(sum(told["stages"].values()) / told["t2o_s"])
    assert (told["case_id"], told["explained"], set(told["stages"])) == (CASE.case_id, False, {"dispatch", "combine"})
