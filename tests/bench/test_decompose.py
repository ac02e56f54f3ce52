"""The identity net = gain - penalty, the bounds against hand-made schedules, and when efficiency is withheld."""

from dataclasses import replace

import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from bench.deciding import join
from bench.deciding.compare import compare_off_on
from bench.deciding.decompose import Bounds, Decomposition, LaneTimes, _compute_rate, decompose
from bench.results import PERTURBED, Measurement, StageTimes, Trial
from bench.settings import MeasureSettings
from moe_impl.options import Workload

SECONDS = st.floats(min_value=1e-7, max_value=4000.0)
QUIET = synthetic.Noise(0.0, 0.0)


def decomposed(trials: list[Trial]) -> Decomposition | None:
    (comparison,) = compare_off_on(trials, MeasureSettings())
    (passes,) = join.by_case(trials).values()
    return decompose(passes, comparison)


def known(builder: synthetic.Builder, tokens: int = 2048, splits: tuple[int, ...] = (2,)) -> Decomposition:
    why = decomposed(builder.trials(synthetic.cases([tokens], splits=splits)))
    assert why is not None
    return why


@given(SECONDS, SECONDS, SECONDS)
def test_net_is_gain_less_penalty_exactly(t1_s: float, t2s_s: float, t2o_s: float) -> None:
    why = Decomposition(t1_s, t2s_s, t2o_s)
    assert why.net_s == why.gain_s - why.penalty_s
    assert why.net_s == why.t1_s - why.t2o_s
    assert why.t1_s == pytest.approx(t1_s, abs=1e-12)


@given(SECONDS, SECONDS, SECONDS)
def test_efficiency_is_never_clipped(t1_s: float, t2s_s: float, t2o_s: float) -> None:
    why = Decomposition(
        t1_s, t2s_s, t2o_s, min_detectable_s=1e-12, bounds=Bounds(t2s_s / 2, "yield_after", t2s_s, None)
    )
    assert why.efficiency is None or why.efficiency == pytest.approx((why.t2s_s - why.t2o_s) / (why.t2s_s - t2s_s / 2))


def test_efficiency_is_withheld_where_the_ideal_gain_is_noise() -> None:
    bounds = Bounds(ideal_s=0.7, ideal_order="yield_after", schedule_bound_s=0.8, ideal_sm_s=None)
    assert Decomposition(0.9, 1.0, 0.85, 0.09, bounds=bounds).efficiency == pytest.approx(0.5)
    assert Decomposition(0.9, 1.0, 0.85, 0.11, bounds=bounds).efficiency is None
    assert Decomposition(0.9, 1.0, 0.85, None, bounds=bounds).efficiency is None
    assert Decomposition(0.9, 1.0, 0.85, 0.0, bounds=replace(bounds, ideal_s=1.0)).efficiency is None


def test_the_unsplit_bound_is_the_longer_lane() -> None:
    assert Decomposition(1, 1, 1, t1_lanes=LaneTimes(0.6, 0.3)).unsplit_bound_s == 0.6
    assert Decomposition(1, 1, 1, t1_lanes=LaneTimes(0.3, 0.4)).unsplit_bound_s == 0.4
    assert Decomposition(1, 1, 1).unsplit_bound_s is None


def test_a_machine_that_overlaps_ideally_has_efficiency_one() -> None:
    why = known(synthetic.Builder(truth=synthetic.Truth(dilation=1.0), noise=replace(QUIET, sample=1e-6)))
    assert why.bounds is not None
    assert why.t2o_s == pytest.approx(why.bounds.schedule_bound_s, rel=1e-4)
    assert why.efficiency == pytest.approx(
        (why.t2s_s - why.bounds.schedule_bound_s) / (why.t2s_s - why.bounds.ideal_s), rel=1e-3
    )


@pytest.mark.parametrize("instrumented", [1.0, 1.5])
def test_a_slow_instrumented_pass_does_not_move_the_bounds(instrumented: float) -> None:
    why = known(synthetic.Builder(noise=QUIET, instrumented=instrumented))
    truth = synthetic.Truth()
    work, variant = synthetic.workload(2048), synthetic.variant()
    link = synthetic.cases([2048])[0].link
    assert why.t2s_lanes is not None
    assert why.bounds is not None
    assert why.t2s_lanes.compute_s + why.t2s_lanes.comm_s == pytest.approx(why.t2s_s)
    assert why.bounds.schedule_bound_s == pytest.approx(truth.span_s(work, link, variant) / truth.dilation)


def test_bounds_are_ordered() -> None:
    why = known(synthetic.Builder(noise=QUIET))
    assert why.bounds is not None
    assert why.t2s_lanes is not None
    longer_lane_s = max(why.t2s_lanes.compute_s, why.t2s_lanes.comm_s)
    assert longer_lane_s <= why.bounds.ideal_s <= why.bounds.schedule_bound_s < why.t2s_s
    assert why.bounds.ideal_sm_s is not None
    assert why.bounds.ideal_s <= why.bounds.ideal_sm_s <= why.bounds.ideal_s * 132 / (132 - 20)


def reserved(reserve_sms: int, *, beside_all_sms: bool = True, cost: float = 1.1) -> Decomposition:
    """Of a T2o that leaves SMs free, which stretches its T2s by ``cost``, beside T2s on all SMs or without it."""
    (case,) = synthetic.cases([2048])
    plain = synthetic.variant()
    leaving = replace(plain, reserve_sms=reserve_sms)
    listed = (plain.split_serial(), leaving) if beside_all_sms else (leaving,)

    def slower(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return synthetic.rescaled(m, cost) if m.role == "T2s" and m.variant.reserve_sms else m

    trials = synthetic.Builder(noise=QUIET, change=slower).trials(
        [replace(case, variants=synthetic.with_t1_and_t2s(*listed))]
    )
    (row,) = (row for row in compare_off_on(trials, MeasureSettings()) if row.variant == leaving)
    (passes,) = join.by_case(trials).values()
    why = decompose(passes, row)
    assert why is not None
    return why


def test_what_leaving_sms_free_costs_is_a_part_of_the_split_penalty() -> None:
    why = reserved(20)
    assert why.reservation_s == pytest.approx(why.t2s_s * (1 - 1 / 1.1))
    assert 0 < why.reservation_s < why.penalty_s
    assert known(synthetic.Builder(noise=QUIET)).reservation_s == 0


def test_what_leaving_sms_free_costs_is_unknown_without_the_same_split_on_all_sms() -> None:
    assert reserved(20, beside_all_sms=False).reservation_s is None


@pytest.mark.parametrize(("reserve_sms", "stretch"), [(0, 132 / 112), (8, 124 / 112), (20, 1.0), (32, 1.0)])
def test_compute_slows_by_the_sms_that_communication_takes_beyond_those_left_free(
    reserve_sms: int, stretch: float
) -> None:
    bounds = reserved(reserve_sms, beside_all_sms=False).bounds
    assert bounds is not None
    assert bounds.ideal_sm_s is not None
    if stretch == 1:
        assert bounds.ideal_sm_s == pytest.approx(bounds.ideal_s)
    else:
        assert bounds.ideal_s < bounds.ideal_sm_s < bounds.ideal_s * stretch


def test_the_compute_rate_is_that_of_the_sms_left_to_it() -> None:
    assert _compute_rate(20, 0, 132) == pytest.approx(112 / 132)
    assert _compute_rate(20, 8, 132) == pytest.approx(112 / 124)
    assert _compute_rate(20, 32, 132) == 1
    assert (_compute_rate(0, 8, 132), _compute_rate(20, 0, 0)) == (None, None)


def test_efficiency_against_shared_sms_divides_by_the_smaller_gain() -> None:
    bounds = Bounds(ideal_s=0.7, ideal_order="yield_after", schedule_bound_s=0.8, ideal_sm_s=0.75)
    why = Decomposition(0.9, 1.0, 0.8, 0.01, bounds=bounds)
    assert (why.efficiency, why.efficiency_sm) == (pytest.approx(0.2 / 0.3), pytest.approx(0.2 / 0.25))
    assert Decomposition(0.9, 1.0, 0.8, 0.01, bounds=replace(bounds, ideal_sm_s=None)).efficiency_sm is None


def test_idle_of_the_serial_run_is_no_stage_time() -> None:
    builder = synthetic.Builder(noise=QUIET, instrumented=1.0)
    idle_s = 0.5e-3

    def waits(m: synthetic.Measurement, pass_index: int, work: synthetic.Workload) -> synthetic.Measurement:
        if m.stages is None or m.role == "T2o":
            return m
        stages = replace(m.stages, span_s=m.stages.span_s + idle_s)
        return replace(m, stages=stages, samples_s=tuple(s + idle_s for s in m.samples_s))

    without, with_idle = known(builder), known(replace(builder, change=waits))
    assert without.t2s_lanes is not None
    assert with_idle.t2s_lanes is not None
    assert with_idle.t2s_s == pytest.approx(without.t2s_s + idle_s)
    assert with_idle.t2s_lanes.compute_s == pytest.approx(without.t2s_lanes.compute_s)


def test_a_perturbed_stage_pass_withholds_what_is_made_of_it() -> None:
    def doubted(role: str) -> synthetic.Builder:
        def change(m: Measurement, pass_index: int, work: Workload) -> Measurement:
            return replace(m, flags=(f"{PERTURBED}: its span is 1.20x",)) if m.role == role and pass_index == 1 else m

        return synthetic.Builder(change=change)

    sound = known(synthetic.Builder())
    assert sound.efficiency is not None
    for role in ("T1", "T2s", "T2o"):
        why = known(doubted(role))
        assert why.efficiency is None
        assert [stage for stage, _ in why.dilation] == [stage for stage, _ in sound.dilation]
        assert {ratio for _, ratio in why.dilation} == {None}
        assert why.bounds == sound.bounds


def test_dilation_compares_overlapped_with_serial_stages() -> None:
    why = known(synthetic.Builder(truth=synthetic.Truth(dilation=1.25)))
    assert dict(why.dilation) == pytest.approx(dict.fromkeys(dict(why.dilation), 1.25))
    assert "gemm1" in dict(why.dilation)


def test_a_cpu_has_no_efficiency_and_no_sm_bound() -> None:
    why = known(synthetic.Builder(machine=synthetic.CPU))
    assert why.efficiency is None
    assert why.bounds is not None
    assert why.bounds.ideal_sm_s is None


def test_without_stage_times_the_three_times_still_stand() -> None:
    why = known(synthetic.Builder(change=lambda m, p, w: replace(m, stages=None)))
    assert (why.bounds, why.t1_lanes, why.efficiency, why.dilation) == (None, None, None, ())
    assert why.penalty_s > 0


def test_without_a_serial_split_run_there_is_no_decomposition() -> None:
    builder = synthetic.Builder(change=lambda m, p, w: synthetic.failed(m) if m.role == "T2s" else m)
    assert decomposed(builder.trials(synthetic.cases([2048]))) is None


def test_a_variant_that_turned_itself_off_is_taken_apart_by_the_micro_batches_it_ran_with() -> None:
    def as_t1(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        if m.role == "T1":
            return m
        assert m.stages is not None
        op_s = {stage: [[sum(ubatches)] for ubatches in layers] for stage, layers in m.stages.op_s.items()}
        return replace(m, effective_split_factor=1, stages=StageTimes(m.stages.span_s, op_s))

    builder = synthetic.Builder(noise=QUIET, change=as_t1)
    (case,) = synthetic.cases([2048], splits=(4,))
    routed_alone = replace(case.workload, model=replace(case.workload.model, shared_experts=0))
    why = decomposed(builder.trials([replace(case, workload=routed_alone)]))
    assert why is not None
    assert why.bounds is not None
    assert why.bounds.ideal_s == pytest.approx(why.t2s_s, rel=1e-6), "one micro-batch overlaps with nothing"
