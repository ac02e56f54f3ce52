"""The process that is profiled: runs every variant of one case, annotated, while the tool looks.

python -P -m bench.profiling.target < request.json
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bench import correctness
from bench.choosing_experts import Means, choose
from bench.environment import check_torch, choose_device, describe
from bench.errors import BenchError, Exit
from bench.measure.timer import timer_for
from bench.profiling.request import WARM_ITERATIONS, Request, load, trace_name
from bench.targets import Target, Targets
from bench.timeline.graphs import AS_ISSUED
from moe_impl.annotate import annotate, annotated_op, iteration_range
from moe_impl.options import Variant
from moe_impl.variant_run import VariantRun


def checked_run(target: Target, variant: Variant) -> VariantRun:
    """The variant's callable, after it agreed with the oracle: no timeline of a wrong run.

    Raises:
        BenchError: it did not.
    """
    run = target.run(variant, lambda position: None)
    _, traces = run.traced()
    check = correctness.against_oracle(traces, target.oracle, target.workload.precision)
    if not check.passed:
        raise BenchError(f"{variant.label} is not profiled: it {correctness.said_wrong(check)}")
    return run


def iterate(run: VariantRun, iterations: int) -> None:
    """Annotated iterations; ends with an idle device, so that nothing leaks into what follows.

    A captured run is captured here, where its ranges are seen, and issued once before without a graph: a reader gives
    each node of the graph the ranges that its launch was in (bench.timeline.graphs).
    """
    if run.captured:
        with annotate(AS_ISSUED, "capture"):
            run.issue()
    call = run.under(annotated_op)
    for index in range(iterations):
        with iteration_range(run.label, index):
            call()
    torch.cuda.synchronize()


def warm_up(run: VariantRun) -> None:
    """Iterations without ranges, outside of what is recorded."""
    for _ in range(WARM_ITERATIONS):
        run()
    torch.cuda.synchronize()


@contextmanager
def with_torch(trace: Path) -> Iterator[None]:
    """Kineto; threads other than this one are seen through its experimental switch."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    every_thread = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with torch.profiler.profile(activities=activities, experimental_config=every_thread) as profiler:
        yield
    profiler.export_chrome_trace(str(trace))


@contextmanager
def with_nsight() -> Iterator[None]:
    """The part of the process that nsys and ncu record: between two calls of the CUDA profiler's API."""
    torch.cuda.profiler.start()
    yield
    torch.cuda.profiler.stop()


def run(request: Request) -> None:
    """All variants, each by itself. nsys and ncu record one range, in which the iterations' names tell them apart."""
    device = choose_device("cuda")
    target = Targets(device).build(request.case)
    if asking := [variant for variant in request.case.variants if variant.experts == "auto"]:
        choose(target, asking, Means(describe(device), timer_for(device)), request.experts_choice)
    runs = [checked_run(target, variant) for variant in request.case.variants]
    for one in runs:
        warm_up(one)
    if request.tool != "torch":
        with with_nsight():
            for one in runs:
                iterate(one, request.iterations)
        return
    for index, one in enumerate(runs):
        with with_torch(Path(request.folder) / trace_name(index)):
            iterate(one, request.iterations)


def main() -> int:
    """Returns the exit code."""
    try:
        check_torch()
        run(load(sys.stdin.buffer.read()))
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.code
    return Exit.DONE


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
