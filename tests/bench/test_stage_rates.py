"""Rates of T1's stages against a roofline, from stage times whose rates are known."""

from dataclasses import replace

import pytest
import synthetic
from synthetic import Builder, Noise

from bench import report
from bench.deciding import join
from bench.deciding.stage_rates import StageRate, stage_rates
from bench.render import tables
from moe_impl.costs import layer_costs
from moe_impl.stages import Stage

CEILINGS = {"copy_bytes_per_s": 2.5e12, "bf16_flops_per_s": 600e12, "fp8_flops_per_s": 1200e12}
TRIALS = Builder(noise=Noise(0, 0), passes=2, pairs=2, instrumented=1.0).trials(synthetic.cases([4096]))
(PASSES,) = join.by_case(TRIALS).values()
T1 = next(m.variant for m in TRIALS[0].measurements if m.role == "T1")


def test_rates_are_the_layers_bill_over_the_stages_time() -> None:
    found = {rate.stage: rate for rate in stage_rates(PASSES, T1, CEILINGS)}
    stages = TRIALS[0].measurements[0].stages
    assert stages is not None
    flops = sum(cost.flops for cost in layer_costs(TRIALS[0].workload, 1) if cost.stage is Stage.GEMM1)
    gemm1 = found["gemm1"]
    assert gemm1.seconds == pytest.approx(stages.op_s["gemm1"][0][0])
    assert gemm1.flops_per_s == pytest.approx(flops / stages.op_s["gemm1"][0][0])
    least_s = max(flops / 600e12, gemm1.hbm_bytes / 2.5e12)
    assert gemm1.roofline == pytest.approx(least_s / gemm1.seconds)
    assert found["silu_mul"].flops == 0
    assert found["silu_mul"].roofline == pytest.approx(found["silu_mul"].bytes_per_s / 2.5e12)
    assert not found.keys() & {"dispatch", "combine"}, "what travels has no such roofline"


def test_fp8_products_are_held_to_the_fp8_ceiling() -> None:
    as_fp8 = [
        replace(trial, workload=replace(trial.workload, precision="fp8", dispatch_dtype="fp8")) for trial in PASSES
    ]
    (fp8,) = (rate for rate in stage_rates(as_fp8, T1, CEILINGS) if rate.stage == "gemm1")
    flops_bound = fp8.flops / 1200e12
    assert fp8.roofline == pytest.approx(max(flops_bound, fp8.hbm_bytes / 2.5e12) / fp8.seconds)


def test_products_on_fp4_tensor_cores_have_no_measured_ceiling_and_rows_of_codes() -> None:
    def of(capability: tuple[int, int]) -> dict[str, StageRate]:
        trials = [
            replace(
                trial,
                workload=replace(trial.workload, precision="nvfp4", dispatch_dtype="nvfp4"),
                machine=replace(trial.machine, capability=capability),
                measurements=tuple(
                    replace(m, variant=replace(m.variant, experts="triton")) for m in trial.measurements
                ),
            )
            for trial in PASSES
        ]
        return {rate.stage: rate for rate in stage_rates(trials, replace(T1, experts="triton"), CEILINGS)}

    hopper, native = of((9, 0)), of((10, 0))
    assert hopper["gemm1"].roofline is not None
    assert native["gemm1"].roofline is None
    assert native["gemm1"].hbm_bytes < hopper["gemm1"].hbm_bytes
    assert native["silu_mul"].roofline is not None
    assert (native["permute"].hbm_bytes, native["permute"].roofline) == (0, None)


def test_without_a_measured_ceiling_the_share_is_unknown_and_the_rate_is_not() -> None:
    for ceilings in ({}, {**CEILINGS, "copy_bytes_per_s": None}):
        rates = stage_rates(PASSES, T1, ceilings)
        assert rates
        assert all(rate.roofline is None and rate.bytes_per_s > 0 for rate in rates)


def test_the_report_shows_the_largest_token_count() -> None:
    stored = Builder(passes=2, pairs=2).trials(synthetic.cases([1024, 4096]))
    (section,) = report.build(synthetic.StubRun(stored)).sections
    table = tables.kernels(section)
    assert table is not None
    assert table.title == "Kernels: T1's stages at 4096 tokens, one layer"
    assert "gemm1" in [row[0] for row in table.rows]
    assert {row[-1] for row in table.rows} == {"n/a"}, "this run recorded no ceilings"
