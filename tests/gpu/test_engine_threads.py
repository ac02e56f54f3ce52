"""Engine ``threads`` on a GPU: the bits of the serial run, the overlap of ``streams``, the caller's stream."""

import threading
from statistics import median

import pytest
import torch
from no_wait import no_wait
from plain_schedule import build
from small_target import SLOW, ignore, small_target

from bench.measure.cuda_timer import CudaEventTimer
from moe_impl.links import LOCAL
from moe_impl.options import Link, Precision, Variant
from moe_impl.overlap.driver import Run
from moe_impl.overlap.lanes import OneLane
from moe_impl.overlap.schedule import ORDERS, Op
from moe_impl.overlap.threads import OpFailedError, run_threads
from moe_impl.stages import Stage

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("link", [LOCAL, SLOW], ids=lambda link: link.name)
@pytest.mark.parametrize(("precision", "experts"), [("bf16", "torch"), ("nvfp4-w4a16", "triton")])
@pytest.mark.parametrize("receive", ["worst_case", "exact"])
def test_threads_give_the_bits_of_the_serial_run(precision: Precision, experts: str, link: Link, receive: str) -> None:
    target = small_target(precision, link, tokens=515)
    for split in (2, 3, 4):
        for order in ORDERS:
            threads = Variant(experts, engine="threads", split_factor=split, receive=receive, order=order)  # type: ignore[arg-type]
            serial = target.run(threads.split_serial(), ignore)()
            target.poison(threads)
            run = target.run(threads, ignore)
            for _ in range(10):
                assert torch.equal(run(), serial), threads.label
    assert not [t for t in threading.enumerate() if t.name.startswith("moe-tbo")]


def test_threads_hide_communication_as_streams_do_and_never_wait_for_the_device() -> None:
    # large: two threads cost the host some 3 ms an iteration here, much of it before the GPU has anything queued
    target = small_target("bf16", SLOW, tokens=16384)
    variants = {engine: Variant("torch", engine=engine) for engine in ("serial", "streams", "threads")}  # type: ignore[arg-type]
    runs = {engine: target.run(variant, ignore) for engine, variant in variants.items()}
    for run in runs.values():
        run()
    timer = CudaEventTimer()
    taken_s = {engine: median(timer.time_s(run) for _ in range(10)) for engine, run in runs.items()}
    assert taken_s["threads"] < 0.9 * taken_s["serial"], taken_s
    assert taken_s["threads"] < 1.25 * taken_s["streams"], taken_s  # its hand-overs cost host time: 1.12x was seen
    with no_wait():
        runs["threads"]()


def test_the_callers_stream_is_the_threads_stream_and_stays_the_callers() -> None:
    """Lanes that set no stream (``OneLane``) issue where the caller would; a first launch finds a context."""
    seen: set[int] = set()
    schedule = build(1, 2, "yield_after")

    def body(state: object, layer: int) -> None:
        seen.add(torch.cuda.current_stream().cuda_stream)

    run = Run(schedule, dict.fromkeys(Stage, body), [None, None], OneLane(), ignore)  # type: ignore[list-item]
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        run_threads(run)
        assert torch.cuda.current_stream() == side
    assert seen == {side.cuda_stream}


def test_running_out_of_memory_in_a_thread_is_told_as_that_and_the_next_run_works() -> None:
    target = small_target("bf16", LOCAL, tokens=256)
    run = target.run(Variant("torch", engine="threads"), ignore)
    expected = run()

    def around(position: int, op: Op):  # type: ignore[no-untyped-def]
        torch.empty(2**50, dtype=torch.uint8, device="cuda")

    with pytest.raises(OpFailedError) as caught:
        run(around)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    assert torch.equal(run(), expected)
