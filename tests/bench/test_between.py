"""Run against run: Welch, margins, false discoveries, pairing and gates, from Trials with known truths."""

import itertools
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import synthetic
from scipy import stats as scipy_stats
from whole_runs import compare_runs

from bench.deciding.across import AXES, Place, axis_named, pair
from bench.deciding.between import FORBIDS, decide_change, decide_time
from bench.deciding.changes import Between, Change, Doubt
from bench.deciding.compare import CLAIMS, Reason, Verdict
from bench.deciding.discovery import FALSE_DISCOVERY_RATE, discoveries
from bench.deciding.facts import Differing, differing, flat, unlike
from bench.deciding.gate import gate
from bench.deciding.welch import Difference
from bench.errors import BenchError, Exit
from bench.render import against_sentences
from bench.results import ExpertsChoice, Measurement, Status, Trial
from bench.settings import MeasureSettings
from moe_impl.links import COLLECTIVE
from moe_impl.options import BackendName, ExpertsName, Precision, Variant, Workload, default_experts
from moe_impl.support import TBO_OFF

MEASURE = MeasureSettings()
SEED = int(os.environ.get("BENCH_SEED", "20261"))
Stretch = Callable[[Measurement, int, Workload], Measurement]


def trials(tokens: Sequence[int] = (4096,), *, seed: int = 1, **settings: object) -> list[Trial]:
    return synthetic.Builder(seed=seed, pairs=6, **settings).trials(synthetic.cases(tokens))


def slower(factor: float, *roles: str, tokens: int | None = None) -> Stretch:
    """Stretches the times of these roles, at one token count or all."""

    def change(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        here = m.role in roles and tokens in (None, work.tokens)
        return synthetic.rescaled(m, factor) if here else m

    return change


def compared(base: list[Trial], new: list[Trial], across: str | None = None) -> Between:
    return compare_runs(base, new, MEASURE, axis_named(across))


def only_change(base: list[Trial], new: list[Trial]) -> Change:
    (row,) = compared(base, new).changes
    return row


# Welch


@pytest.mark.parametrize(
    ("base", "new", "confidence"),
    [
        ((0.1, 0.11, 0.12, 0.1, 0.09), (0.2, 0.15, 0.22, 0.25, 0.19, 0.18), 0.95),
        ((0.1, 0.11, 0.12), (0.2, 0.15, 0.22, 0.25, 0.19), 0.99),
    ],
)
def test_welch_is_scipys(base: tuple[float, ...], new: tuple[float, ...], confidence: float) -> None:
    found = Difference(base, new)
    theirs = scipy_stats.ttest_ind(new, base, equal_var=False)
    interval = theirs.confidence_interval(confidence)
    assert found.confidence == confidence
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert (math.log(found.low), math.log(found.high)) == pytest.approx((interval.low, interval.high))
    assert found.min_detectable > math.expm1(found.half_width)


def test_the_pooled_spread_is_that_of_both_sides() -> None:
    found = Difference((1.0, 3.0), (10.0, 10.0, 13.0))
    assert found.between_sd == pytest.approx(math.sqrt((2.0 + 6.0) / 3))


def test_a_side_of_one_pass_has_no_interval() -> None:
    found = Difference((0.1,), (0.1, 0.2, 0.3))
    assert (found.low, found.high, found.p_value, found.between_sd, found.min_detectable) == (None,) * 5


@pytest.mark.parametrize(("new", "p_value"), [((0.5, 0.5), 1.0), ((0.6, 0.6), 0.0)])
def test_passes_without_any_spread_are_sure(new: tuple[float, ...], p_value: float) -> None:
    found = Difference((0.5, 0.5), new)
    assert found.p_value == p_value
    assert found.low == found.high == pytest.approx(math.exp(new[0] - 0.5))


def test_discoveries_are_benjamini_and_hochbergs_of_1995() -> None:
    # the 15 p-values of their section 3.2, of which four hold at 5 %
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    p += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    shuffled = random.Random(1).sample(p, len(p))
    assert [value for value, holds in zip(shuffled, discoveries(shuffled), strict=True) if holds] == [
        value for value in shuffled if value <= 0.0095
    ]
    assert discoveries([]) == []
    assert discoveries([0.04, 0.049]) == [True, True]  # step up: the larger one carries the smaller
    assert discoveries([0.04, 0.06]) == [False, False]


# Verdicts


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.03, Verdict.SLOWER), (0.97, Verdict.FASTER), (1.0, Verdict.SAME)],
)
def test_a_change_of_tbo_is_found(factor: float, verdict: Verdict) -> None:
    row = only_change(trials(), trials(seed=2, change=slower(factor, "T2o")))
    assert (row.verdict, row.reasons) == (verdict, ())
    assert row.difference.low <= 1 / factor <= row.difference.high


def test_drift_of_the_whole_machine_cancels_and_shows_in_the_times() -> None:
    row = only_change(trials(), trials(seed=2, change=slower(1.05, "T1", "T2s", "T2o")))
    assert row.verdict is Verdict.SAME
    assert [(time.role, time.verdict) for time in row.times] == [("T1", Verdict.SLOWER), ("T2o", Verdict.SLOWER)]
    assert [time.difference.ratio for time in row.times] == pytest.approx([1.05, 1.05], rel=2e-3)
    assert row.times[0].new_s == pytest.approx(1.05 * row.times[0].base_s, rel=5e-3)


def test_times_are_judged_against_the_noise_floor_and_changes_are_not() -> None:
    logs = ((0.0, 0.01, -0.01, 0.01, -0.01), (0.02, 0.03, 0.01, 0.03, 0.01))
    found = Difference(*logs)
    assert found.low > 1 + MEASURE.decide_beyond  # sure by its interval alone
    assert math.log(found.low) < found.between_sd
    assert decide_time(found, MEASURE) == (Verdict.UNDECIDED, (Doubt.NOISE_FLOOR,))
    beyond = Difference(logs[0], tuple(x + 0.03 for x in logs[1]))
    assert decide_time(beyond, MEASURE) == (Verdict.SLOWER, ())
    assert decide_time(Difference(beyond.new, beyond.base), MEASURE) == (Verdict.FASTER, ())


@pytest.mark.parametrize(("passes", "new_passes"), [(1, 5), (5, 1)])
def test_one_pass_on_a_side_decides_nothing(passes: int, new_passes: int) -> None:
    row = only_change(trials(passes=passes), trials(passes=new_passes, seed=2, change=slower(2.0, "T2o")))
    assert (row.verdict, row.reasons) == (Verdict.UNDECIDED, (Doubt.FEW_PASSES,))
    assert {time.verdict for time in row.times} == {Verdict.UNDECIDED}


def test_a_cpu_decides_nothing() -> None:
    row = only_change(trials(machine=synthetic.CPU), trials(machine=synthetic.CPU, change=slower(2.0, "T2o")))
    assert (row.verdict, row.reasons) == (Verdict.UNDECIDED, (Doubt.CPU,))


def test_a_baseline_that_failed_once_is_no_baseline() -> None:
    def crash(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return synthetic.failed(m) if m.role == "T2o" and pass_index == 3 else m

    row = only_change(trials(change=crash), trials(seed=2))
    assert (row.verdict, row.reasons) == (Verdict.UNDECIDED, (Doubt.PASS_FAILED,))


def test_every_reason_within_a_run_has_its_doubt_between_two() -> None:
    within = set(Reason) - set(FORBIDS)
    assert within == {Reason.STRADDLES, Reason.TOUCHES_MARGIN, Reason.FALSE_DISCOVERY}
    assert {Doubt(reason.value) for reason in within} == {Doubt.STRADDLES, Doubt.TOUCHES_MARGIN, Doubt.FALSE_DISCOVERY}


def test_a_difference_that_so_long_a_table_shows_by_chance_is_withdrawn() -> None:
    noise = synthetic.Noise(process=0.006)
    base = trials(noise=noise)
    same = only_change(base, base)
    just_enough = math.exp(1.1 * same.difference.half_width + 0.002)
    new = trials(noise=noise, change=slower(just_enough, "T2o"))
    alone = only_change(base, new)
    assert alone.verdict is Verdict.SLOWER
    assert 0.05 / 12 < alone.difference.p_value < 0.05
    others = trials([4096 + n for n in range(1, 12)], seed=5)  # eleven rows without any difference beside it
    (row,) = (row for row in compared([*base, *others], [*new, *others]).changes if row.tokens == 4096)
    assert (row.verdict, row.reasons) == (Verdict.UNDECIDED, (Doubt.FALSE_DISCOVERY,))
    assert row.difference == alone.difference


# Calibration


def simulated(draw: random.Random, effect: float = 0.0, passes: int = 5) -> Difference:
    """Speed-ups of two runs, 0.5 % the standard deviation of what each process does to its own."""
    base, new = (tuple(draw.gauss(mean, 0.005) for _ in range(passes)) for mean in (0.0, math.log1p(effect)))
    return Difference(base, new)


def most(trials: int, rate: float) -> int:
    """What so rare an event does not exceed in 99.9 % of such experiments."""
    return int(scipy_stats.binom.ppf(0.999, trials, rate))


def test_identical_code_is_called_different_at_most_once_in_a_hundred() -> None:
    draw = random.Random(SEED)
    verdicts = [decide_change(simulated(draw), MEASURE)[0] for _ in range(400)]
    claims = sum(verdict in CLAIMS for verdict in verdicts)
    assert claims <= most(400, 0.01), f"BENCH_SEED={SEED}"


def test_two_percent_are_found() -> None:
    draw = random.Random(SEED)
    lost = [decide_change(simulated(draw, -0.02), MEASURE)[0] for _ in range(200)]
    assert set(lost) <= {Verdict.SLOWER, Verdict.UNDECIDED, Verdict.SAME}
    assert lost.count(Verdict.SLOWER) > 180, f"BENCH_SEED={SEED}"


def test_a_table_without_any_difference_claims_one_in_one_of_twenty_at_most() -> None:
    draw = random.Random(SEED)
    wrong = 0
    for _ in range(150):
        table = [simulated(draw) for _ in range(14)]
        holds = discoveries([found.p_value for found in table])
        wrong += any(
            held and decide_change(found, MEASURE)[0] in CLAIMS for held, found in zip(holds, table, strict=True)
        )
    assert wrong <= most(150, FALSE_DISCOVERY_RATE), f"BENCH_SEED={SEED}"


# Pairing


def places(*precisions: Precision, experts: tuple[ExpertsName, ...] = (), tokens: int = 4096) -> list[Place]:
    """An overlapped variant a precision, or one a backend."""
    return [
        Place(case.workload, case.link, Variant(experts=name))
        for case in synthetic.cases((tokens,), precisions)
        for name in experts or (default_experts(case.workload.precision),)
    ]


def told(pairs: Sequence[tuple[Place, Place]]) -> list[str]:
    return [
        f"{a.workload.precision} {a.variant.experts} - {b.workload.precision} {b.variant.experts}" for a, b in pairs
    ]


PRECISION = AXES["precision"]


def test_the_same_case_and_variant_stand_against_each_other() -> None:
    base, new = places("bf16", "nvfp4-w4a16"), places("nvfp4-w4a16", "bf16")
    found = pair(base, new, None)
    assert found.pairs == tuple((place, place) for place in base)
    assert (found.without_counterpart, found.only_in_new) == ((), ())


def test_what_only_one_run_holds_is_told_apart() -> None:
    found = pair(places("bf16"), places("nvfp4-w4a16"), None)
    assert found.pairs == ()
    assert found.without_counterpart == ((places("bf16")[0], None),)
    assert found.only_in_new == tuple(places("nvfp4-w4a16"))


def test_across_precision_one_folder_gives_each_pair_once_and_backends_follow() -> None:
    both = places("nvfp4-w4a16", "bf16")
    found = pair(both, both, PRECISION)
    assert told(found.pairs) == ["bf16 torch - nvfp4-w4a16 triton"]
    assert (found.without_counterpart, found.only_in_new) == ((), ())


def test_across_precision_the_same_backend_goes_before_each_precisions_own() -> None:
    base = places("bf16", experts=("torch", "triton"))
    found = pair(base, places("nvfp4-w4a16", experts=("torch", "triton")), PRECISION)
    assert told(found.pairs) == ["bf16 torch - nvfp4-w4a16 torch", "bf16 triton - nvfp4-w4a16 triton"]
    found = pair(base, places("nvfp4-w4a16"), PRECISION)
    assert told(found.pairs) == ["bf16 torch - nvfp4-w4a16 triton", "bf16 triton - nvfp4-w4a16 triton"]


def test_across_precision_nothing_else_may_differ() -> None:
    found = pair(places("bf16", tokens=512), places("nvfp4-w4a16", tokens=4096), PRECISION)
    assert found.pairs == ()
    assert found.without_counterpart == ((places("bf16", tokens=512)[0], "nvfp4-w4a16"),)
    assert found.only_in_new == tuple(places("nvfp4-w4a16", tokens=4096))
    other_seed = [replace(place, workload=replace(place.workload, seed=7)) for place in places("nvfp4-w4a16")]
    assert pair(places("bf16"), other_seed, PRECISION).pairs == ()


def test_every_precision_may_stand_on_both_sides_but_the_ends() -> None:
    every = ("nvfp4", "fp8", "bf16", "nvfp4-w4a16")
    assert PRECISION.later("bf16", every) == ("fp8", "nvfp4-w4a16", "nvfp4")
    assert PRECISION.later("bf16", ("nvfp4",)) == ("nvfp4",)
    assert PRECISION.later("nvfp4", every) == ()


def test_across_link_the_same_work_and_variant_over_another_link() -> None:
    real = [replace(place, link=COLLECTIVE) for place in places("bf16", "nvfp4")]
    found = pair(real, places("nvfp4", "bf16"), axis_named("link"))
    assert told(found.pairs) == ["bf16 torch - bf16 torch", "nvfp4 triton - nvfp4 triton"]
    assert all(base.link == COLLECTIVE and new.link.transport == "paced" for base, new in found.pairs)
    assert pair(real, real, axis_named("link")).pairs == ()


def test_an_unknown_axis_is_refused_in_one_line() -> None:
    with pytest.raises(
        BenchError, match=r"^--across: found precison, did you mean precision\? allowed: precision, link$"
    ):
        axis_named("precison")


# Gate


def outcome(base: list[Trial], new: list[Trial], *, alike: bool = True, absolute: bool = False) -> Exit:
    return gate(compared(base, new), alike=alike, absolute=absolute)


def test_a_gate_ends_1_on_a_regression_alone() -> None:
    both = (512, 4096)
    base = trials(both)
    assert outcome(base, trials(both, seed=2)) is Exit.DONE
    assert outcome(base, trials(both, seed=2, change=slower(0.9, "T2o"))) is Exit.DONE
    assert outcome(base, trials(both, seed=2, change=slower(1.03, "T2o", tokens=512))) is Exit.REGRESSION


def test_times_end_a_gate_only_where_asked() -> None:
    base, new = trials(), trials(seed=2, change=slower(1.05, "T1", "T2s", "T2o"))
    assert outcome(base, new) is Exit.DONE
    assert outcome(base, new, absolute=True) is Exit.REGRESSION


def test_4_beats_1_beats_3_beats_0() -> None:
    tokens = (256, 512, 4096)

    def mixed(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        noisy = work.tokens == 256 and m.role == "T2o"
        return synthetic.rescaled(m, 1 + 0.05 * pass_index) if noisy else slower(1.05, "T2o", tokens=512)(m, 0, work)

    base, bad = trials(tokens), trials(tokens, seed=2, change=mixed)
    verdicts = {row.tokens: row.verdict for row in compared(base, bad).changes}
    assert verdicts == {256: Verdict.UNDECIDED, 512: Verdict.SLOWER, 4096: Verdict.SAME}

    def of(*counts: int) -> tuple[list[Trial], list[Trial]]:
        return [t for t in base if t.workload.tokens in counts], [t for t in bad if t.workload.tokens in counts]

    assert outcome(*of(4096)) is Exit.DONE
    assert outcome(*of(256, 4096)) is Exit.UNDECIDED
    assert outcome(*of(*tokens)) is Exit.REGRESSION
    assert outcome(*of(*tokens), alike=False) is Exit.NOT_COMPARABLE
    assert outcome(base, of(256, 512)[1]) is Exit.NOT_COMPARABLE


@pytest.mark.parametrize("role", ["T1", "T2o"])
@pytest.mark.parametrize("status", [Status.ERROR, Status.OOM, Status.SKIPPED, Status.INCORRECT])
def test_what_ends_once_without_a_time_in_new_is_not_comparable(role: str, status: Status) -> None:
    def crash(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return synthetic.failed(m, status, "boom") if m.role == role and pass_index in (1, 2) else m

    found = compared(trials(), trials(seed=2, change=crash))
    assert found.changes == ()
    (entry,) = found.not_compared
    assert (entry.role, entry.status, entry.reason, entry.passes) == (role, status, "boom", (1, 2))
    assert gate(found, alike=True, absolute=False) is Exit.NOT_COMPARABLE


def _auto(found: list[Trial], *became: BackendName) -> list[Trial]:
    """Trials of ``experts: auto``, which became these, pass by pass."""
    choices = itertools.cycle(became)
    return [
        replace(
            trial,
            measurements=tuple(replace(m, variant=replace(m.variant, experts="auto")) for m in trial.measurements),
            experts_choice=ExpertsChoice(next(choices)),
        )
        for trial in found
    ]


def test_auto_that_became_another_backend_is_not_comparable() -> None:
    """A gate must not flip where two backends are equally fast, nor call the other's time a regression of TBO."""
    base, new = trials(), trials(seed=2, change=slower(1.2, "T2o"))
    found = compared(_auto(base, "triton"), _auto(new, "humming"))
    assert found.changes == ()
    assert [entry.reason for entry in found.not_compared] == ["experts auto is triton in BASE, humming in NEW"]
    assert against_sentences.not_compared(found.not_compared)[0].endswith(
        ": experts auto is triton in BASE, humming in NEW"
    )
    assert gate(found, alike=True, absolute=False) is Exit.NOT_COMPARABLE
    same = compared(_auto(base, "triton"), _auto(new, "triton"))
    assert gate(same, alike=True, absolute=False) is Exit.REGRESSION
    mixed = compared(_auto(base, "triton"), _auto(new, "triton", "humming"))
    assert [entry.reason for entry in mixed.not_compared] == [
        "experts auto is triton in BASE, humming and triton in NEW"
    ]


def test_a_case_that_base_could_not_time_is_new_and_gates_nothing() -> None:
    def crash(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return synthetic.failed(m) if work.tokens == 512 and m.role == "T2o" else m

    found = compared(trials((512, 4096), change=crash), trials((512, 4096), seed=2))
    assert [row.tokens for row in found.changes] == [4096]
    assert [place.workload.tokens for place in found.only_in_new] == [512]
    assert gate(found, alike=True, absolute=False) is Exit.DONE


def test_tbo_that_turned_itself_off_in_both_runs_is_set_aside() -> None:
    def off(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return replace(m, limits=(TBO_OFF,)) if m.role == "T2o" and work.tokens == 512 else m

    tokens = (512, 4096)
    found = compared(trials(tokens, change=off), trials(tokens, seed=2, change=off))
    assert [place.workload.tokens for place in found.turned_off] == [512]
    assert gate(found, alike=True, absolute=False) is Exit.DONE
    in_one = compared(trials(tokens), trials(tokens, seed=2, change=off))
    assert [(row.verdict, row.reasons) for row in in_one.changes if row.tokens == 512] == [
        (Verdict.UNDECIDED, (Doubt.TURNED_OFF,))
    ]
    nothing = compared(trials((512,), change=off), trials((512,), change=off))
    assert gate(nothing, alike=True, absolute=False) is Exit.NOT_COMPARABLE


# What was recorded


def test_another_gpu_timer_or_number_of_ranks_is_not_alike() -> None:
    base = trials(passes=2)
    assert unlike(base, trials(passes=3, seed=2)) == ()
    h200 = replace(synthetic.H100, name="NVIDIA H200")
    assert unlike(base, trials(machine=h200)) == (Differing("machine", synthetic.H100.name, "NVIDIA H200"),)
    assert unlike(base, [replace(t, timer="host") for t in base]) == (Differing("timer", "cuda_event", "host"),)
    ranks = replace(synthetic.H100, ranks=2)
    assert unlike(base, trials(machine=ranks)) == (Differing("ranks", "1", "2"),)
    names = [fact.name for fact in unlike(base, trials(machine=synthetic.CPU))]
    assert names == ["device", "machine", "timer"]
    newer = replace(synthetic.H100, torch_version="2.14.0", memory_bytes=1)
    assert unlike(base, trials(machine=newer)) == ()


def test_another_launch_mode_is_not_alike() -> None:
    base = trials(passes=2)
    graph = [
        replace(t, measurements=tuple(replace(m, variant=replace(m.variant, launch="graph")) for m in t.measurements))
        for t in base
    ]
    assert unlike(base, graph) == (Differing("launch mode", "eager", "graph"),)
    assert unlike(base, [*base, *graph]) == ()


def test_a_mixed_run_is_alike_to_none_of_its_parts() -> None:
    other = trials(machine=replace(synthetic.H100, name="NVIDIA H200"))
    assert unlike(trials(), [*trials(), *other]) == (
        Differing("machine", "NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3 and NVIDIA H200"),
    )


def test_recorded_facts_are_compared_by_dotted_name() -> None:
    base = {"gpu": {"name": "H100", "power_limit_w": 700.0}, "settings": {}, "driver": "570"}
    new = {"gpu": {"name": "H100", "power_limit_w": 350.0}, "settings": {"CUDA_LAUNCH_BLOCKING": "1"}, "driver": "570"}
    assert flat(base) == {"gpu.name": "H100", "gpu.power_limit_w": 700.0, "settings": {}, "driver": "570"}
    assert differing(base, new)[0] == Differing("gpu.power_limit_w", 700.0, 350.0)
    assert Differing("settings.CUDA_LAUNCH_BLOCKING", None, "1") in differing(base, new)
    assert differing(base, base) == ()
