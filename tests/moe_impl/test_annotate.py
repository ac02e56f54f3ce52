"""Ranges name what runs, where a profiler can see them."""

from contextlib import AbstractContextManager

import pytest
import torch
from small_layer import Built, workload

from bench.measure.stages import ITERATIONS, WARM_ITERATIONS, stage_times
from moe_impl import annotate
from moe_impl.annotate import annotated_op
from moe_impl.options import Variant


def test_every_op_opens_a_range_inside_its_micro_batch_inside_its_layer() -> None:
    run = Built(workload()).run(Variant("torch"))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run(annotated_op)
    ranges = [event for event in profile.events() if event.name.startswith("moe_tbo/")]
    ops = [event for event in ranges if " ubatch " in event.name]
    assert [event.name for event in sorted(ops, key=lambda event: event.time_range.start)] == [
        f"moe_tbo/{op.stage} layer {op.layer} ubatch {op.ubatch}" for op in run.schedule.ops
    ]
    for event in ops:
        outside = event.cpu_parent
        assert outside.name == f"moe_tbo/ubatch {event.name.split()[-1]}"
        assert outside.cpu_parent.name == f"moe_tbo/layer {event.name.split()[2]}"


def test_the_stage_pass_is_annotated_only_where_a_profiler_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Built(workload()).run(Variant("torch"))
    opened: list[str] = []
    real = annotate.annotate

    def counting(name: str, category: str, payload: int | None = None) -> AbstractContextManager[None]:
        opened.append(category)
        return real(name, category, payload)

    monkeypatch.setattr(annotate, "annotate", counting)
    stage_times(run, torch.device("cpu"))
    assert opened == []
    monkeypatch.setenv(annotate.INJECTION, "/a/tool")
    stage_times(run, torch.device("cpu"))
    assert opened.count("iteration") == ITERATIONS
    calls = WARM_ITERATIONS + ITERATIONS  # the warm-up's ops lie in no iteration's range
    assert opened.count("gemm1") == calls * run.schedule.layers * run.schedule.num_ubatches
