"""Verdicts and their reasons, from Trials with known truths."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import synthetic

from bench.deciding import stats
from bench.deciding.compare import CLAIMS, Comparison, Reason, Verdict, compare_off_on, decide
from bench.results import Measurement, Status, Trial
from bench.settings import MeasureSettings
from moe_impl.options import Workload
from moe_impl.support import TBO_OFF

MEASURE = MeasureSettings()
Change = Callable[[Measurement, int, Workload], Measurement]


def unchanged(m: Measurement, pass_index: int, work: Workload) -> Measurement:
    return m


def only_comparison(
    *, tokens: int = 4096, change: Change = unchanged, trials: list[Trial] | None = None, passes: int = 5
) -> Comparison:
    if trials is None:
        trials = synthetic.Builder(change=change, passes=passes).trials(synthetic.cases([tokens]))
    (comparison,) = compare_off_on(trials, MEASURE)
    return comparison


@pytest.mark.parametrize(
    ("logs", "verdict", "reasons"),
    [
        ([0.0031, 0.0030, 0.0032, 0.0031, 0.0030], Verdict.FASTER, ()),
        ([-0.0031, -0.0030, -0.0032, -0.0031, -0.0030], Verdict.SLOWER, ()),
        ([0.0001, -0.0002, 0.0, 0.0002, -0.0001], Verdict.SAME, ()),
        ([0.0010, 0.0011, 0.0010, 0.0012, 0.0011], Verdict.SAME, ()),
        ([0.02, -0.02, 0.01, -0.01, 0.0], Verdict.UNDECIDED, (Reason.STRADDLES,)),
        ([0.012, 0.001, 0.011, 0.002, 0.013], Verdict.UNDECIDED, (Reason.TOUCHES_MARGIN,)),
        ([0.5], Verdict.UNDECIDED, (Reason.ONE_PASS,)),
    ],
)
def test_the_interval_decides(logs: list[float], verdict: Verdict, reasons: tuple[Reason, ...]) -> None:
    assert decide(stats.estimate([[log] for log in logs]), MEASURE) == (verdict, reasons)


def test_decide_beyond_goes_before_same_within() -> None:
    small_but_sure = stats.estimate([[0.005], [0.0051], [0.0049], [0.005], [0.005]])
    assert decide(small_but_sure, MEASURE) == (Verdict.FASTER, ())
    assert decide(small_but_sure, replace(MEASURE, decide_beyond=0.006)) == (Verdict.SAME, ())


def test_a_variant_that_turned_itself_off_gets_no_verdict_however_large_the_difference() -> None:
    def off(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return m if m.role == "T1" else replace(m, effective_split_factor=1, limits=(TBO_OFF,), labels=(TBO_OFF,))

    found = only_comparison(change=off)
    assert (found.verdict, found.reasons, found.ran_tbo) == (Verdict.UNDECIDED, (Reason.TURNED_OFF,), False)
    assert only_comparison().ran_tbo


@pytest.mark.parametrize(("tokens", "verdict"), [(256, Verdict.SLOWER), (8192, Verdict.FASTER)])
def test_the_true_speedup_lies_in_the_interval(tokens: int, verdict: Verdict) -> None:
    found = only_comparison(tokens=tokens)
    truth = synthetic.Truth()
    off, on = (truth.span_s(found.workload, found.link, v) for v in (found.baseline, found.variant))
    assert found.low is not None
    assert found.high is not None
    assert found.low < off / on < found.high
    assert (found.verdict, found.reasons, found.passes) == (verdict, (), 5)
    assert found.baseline_s == pytest.approx(off, rel=2e-3)
    assert found.variant_s == pytest.approx(on, rel=2e-3)


def test_each_overlapped_variant_meets_its_own_unsplit_run() -> None:
    trials = synthetic.Builder().trials(synthetic.cases([4096], splits=(2, 4)))
    assert [c.variant.split_factor for c in compare_off_on(trials, MEASURE)] == [2, 4]
    assert all(c.baseline.split_factor == 1 for c in compare_off_on(trials, MEASURE))


def test_a_cpu_gets_no_verdict_whatever_the_interval() -> None:
    trials = synthetic.Builder(machine=synthetic.CPU).trials(synthetic.cases([8192]))
    found = only_comparison(trials=trials)
    assert (found.verdict, found.reasons) == (Verdict.UNDECIDED, (Reason.CPU,))
    assert found.limits == ("cpu: functional check, no performance claim",)


def test_one_pass_alone_is_undecided() -> None:
    found = only_comparison(passes=1)
    assert (found.verdict, found.reasons) == (Verdict.UNDECIDED, (Reason.ONE_PASS,))
    assert found.speedup is not None
    assert found.low is None


def test_a_missing_baseline_is_named() -> None:
    trials = synthetic.Builder().trials(synthetic.cases([4096]))
    without = [replace(t, measurements=tuple(m for m in t.measurements if m.role != "T1")) for t in trials]
    found = only_comparison(trials=without)
    assert found.verdict is Verdict.UNDECIDED
    assert Reason.BASELINE_MISSING in found.reasons
    assert (found.speedup, found.baseline_s) == (None, None)


def test_a_baseline_that_always_failed_is_named() -> None:
    found = only_comparison(change=lambda m, p, w: synthetic.failed(m) if m.role == "T1" else m)
    assert Reason.BASELINE_FAILED in found.reasons
    assert found.speedup is None


@pytest.mark.parametrize("role", ["T1", "T2o"])
@pytest.mark.parametrize("status", [Status.INCORRECT, Status.ERROR, Status.HANG])
def test_a_variant_that_failed_once_does_not_win_on_its_other_passes(role: str, status: Status) -> None:
    def fail_last(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return synthetic.failed(m, status) if m.role == role and pass_index == 4 else m

    found = only_comparison(tokens=8192, change=fail_last)
    assert (found.verdict, found.reasons, found.passes) == (Verdict.UNDECIDED, (Reason.PASS_FAILED,), 4)


def test_samples_of_a_variant_found_incorrect_afterwards_do_not_count() -> None:
    def wrong_at_the_end(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return replace(m, status=Status.INCORRECT) if m.role == "T2o" and pass_index == 0 else m

    found = only_comparison(tokens=8192, change=wrong_at_the_end)
    assert (found.verdict, found.reasons, found.passes) == (Verdict.UNDECIDED, (Reason.PASS_FAILED,), 4)


def test_fewer_than_two_common_passes_are_undecided() -> None:
    def skip_later(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return synthetic.failed(m, Status.SKIPPED) if m.role == "T2o" and pass_index else m

    assert only_comparison(change=skip_later).reasons == (Reason.FEW_COMMON_PASSES,)


def test_an_overlapped_variant_that_was_never_timed_is_no_comparison() -> None:
    trials = synthetic.Builder(change=lambda m, p, w: synthetic.failed(m) if m.role == "T2o" else m).trials(
        synthetic.cases([4096])
    )
    assert compare_off_on(trials, MEASURE) == []


def test_sides_with_different_blocks_are_not_paired() -> None:
    def cut(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return replace(m, samples_s=m.samples_s[:-2]) if m.role == "T1" else m

    found = only_comparison(change=cut)
    assert (found.verdict, found.reasons, found.speedup) == (Verdict.UNDECIDED, (Reason.UNPAIRED,), None)


@pytest.mark.parametrize("differs", ["machine", "timer"])
def test_passes_of_different_machines_or_timers_are_not_mixed(differs: str) -> None:
    other = {"machine": replace(synthetic.H100, name="NVIDIA H200"), "timer": "host"}[differs]
    *trials, last = synthetic.Builder().trials(synthetic.cases([8192]))
    found = only_comparison(trials=[*trials, replace(last, **{differs: other})])
    assert found.reasons == (Reason.MACHINES_DIFFER,)


NOISY = synthetic.Noise(process=0.004)
EQUALS = synthetic.cases([4096 + n for n in range(1, 12)])


def level(lost: float) -> Change:
    """Overlap that takes ``lost`` times as long as off, whatever the truth."""

    def change(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        if m.role != "T2o":
            return m
        off, on = (synthetic.Truth().span_s(work, EQUALS[0].link, one) for one in (m.variant.unsplit(), m.variant))
        return synthetic.rescaled(m, off / on * lost)

    return change


@pytest.fixture(scope="module")
def just_slower() -> list[Trial]:
    """One case whose T2o is slower, told alone, but at a p-value that one of twelve equal rows may well have."""
    first = only_comparison(trials=synthetic.Builder(noise=NOISY, change=level(1.0)).trials(synthetic.cases([4096])))
    lost = first.speedup * math.exp(1.1 * first.estimate.half_width + math.log1p(MEASURE.decide_beyond))
    trials = synthetic.Builder(noise=NOISY, change=level(lost)).trials(synthetic.cases([4096]))
    alone = only_comparison(trials=trials)
    assert alone.verdict is Verdict.SLOWER
    assert 0.05 / 12 < alone.estimate.p_value < 0.05
    return trials


def test_a_difference_that_so_long_a_table_shows_by_chance_is_withdrawn(just_slower: list[Trial]) -> None:
    others = synthetic.Builder(noise=NOISY, change=level(1.0), seed=5).trials(EQUALS)
    row, *rest = compare_off_on([*just_slower, *others], MEASURE)
    assert (row.verdict, row.reasons) == (Verdict.UNDECIDED, (Reason.FALSE_DISCOVERY,))
    assert row.estimate == only_comparison(trials=just_slower).estimate
    assert not [other for other in rest if other.verdict in CLAIMS]


def test_rows_that_cannot_get_a_verdict_are_no_tests_of_the_table(just_slower: list[Trial]) -> None:
    def fail(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return synthetic.failed(m) if m.role == "T2o" and pass_index == 4 else level(1.0)(m, pass_index, work)

    others = synthetic.Builder(noise=NOISY, change=fail, seed=5).trials(EQUALS)
    row, *rest = compare_off_on([*just_slower, *others], MEASURE)
    assert row.verdict is Verdict.SLOWER
    assert {other.reasons for other in rest} == {(Reason.PASS_FAILED,)}


def test_drift_between_passes_does_not_move_the_speedup() -> None:
    drifting = only_comparison(change=lambda m, p, w: synthetic.rescaled(m, 1 + 0.1 * p))
    assert drifting.speedup == pytest.approx(only_comparison().speedup, rel=1e-12)
