"""The measured link on a GPU: rows come back from host memory bit for bit, both engines at once, no host wait."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import pytest
import torch
from no_wait import no_wait
from small_target import ignore, small_target

from bench.correctness import errors
from bench.measure.cuda_timer import CudaEventTimer
from bench.targets import Target
from moe_impl import rows
from moe_impl.links import HOST_LINK
from moe_impl.options import Precision, Receive, Variant
from moe_impl.transport.chunks import CHUNKS_A_TRANSFER, LEAST_CHUNK_BYTES, MOST_CHUNK_BYTES, chunks

pytestmark = pytest.mark.gpu

R, H = 8, 7168
ROW = 2 * H
CAPACITY = 16384
A_CHUNK, TWELVE, LONGEST = (
    LEAST_CHUNK_BYTES // ROW,
    CHUNKS_A_TRANSFER * LEAST_CHUNK_BYTES // ROW,
    CHUNKS_A_TRANSFER * MOST_CHUNK_BYTES // ROW,
)
"""Rows in the smallest chunk, in the largest transfer of such chunks, in the smallest one of the largest chunks."""
COUNTS = sorted({0, 1, CAPACITY, *(rows_ + off for rows_ in (A_CHUNK, TWELVE, LONGEST) for off in (-1, 0, 1, 2))})
CYCLES_PER_S = 1.7e9
"""About an H100's SM clock; torch.cuda._sleep counts cycles."""


@pytest.fixture(scope="module")
def link():  # type: ignore[no-untyped-def]
    from moe_impl.transport.host_link import HostLink

    return HostLink(torch.device("cuda"))


@pytest.fixture(scope="module")
def plan() -> rows.SentRows:
    """CAPACITY rows of random tokens."""
    tokens = CAPACITY // R
    ids = torch.arange(R, device="cuda", dtype=torch.int32).expand(tokens, R)
    sent = rows.plan_rows(ids, torch.ones(tokens, R, device="cuda"), R, R)
    index = torch.randint(0, tokens, (CAPACITY,), device="cuda", dtype=torch.int32)
    return replace(sent, token_M=index)


def _counted(plan: rows.SentRows, used: int) -> rows.SentRows:
    return replace(plan, num_rows=torch.tensor([used], device="cuda", dtype=torch.int32), known_rows=used)


def _room(count: int = CAPACITY) -> torch.Tensor:
    return torch.full((count, H), torch.nan, device="cuda", dtype=torch.bfloat16)


def _poison(link) -> None:  # type: ignore[no-untyped-def]
    torch.cuda.synchronize()
    link.ring_SB.fill_(0xFF)  # bf16 NaN


@contextmanager
def _never_waiting() -> Iterator[None]:
    with no_wait():
        yield


@pytest.mark.parametrize("used", COUNTS)
def test_exactly_the_counted_rows_come_back_from_host_memory(link, plan: rows.SentRows, used: int) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(CAPACITY // R, H, device="cuda").bfloat16()
    sent, received, returned = _counted(plan, used), _room(), _room()
    expected = x[plan.token_M[:used].long()]
    _poison(link)
    with _never_waiting():
        link.dispatch(x, sent, received)
    assert torch.equal(received[:used], expected)
    assert received[used:].isnan().all()
    for chunk in chunks(used * ROW)[-len(link.ring_SB) :]:  # what the slots held last
        staged = link.ring_SB[chunk.slot, : chunk.end - chunk.begin]
        passed = expected.view(-1).view(torch.uint8)[chunk.begin : chunk.end].cpu()
        assert torch.equal(staged, passed), "a chunk did not travel through host memory"

    partial = torch.randn(CAPACITY, H, device="cuda").bfloat16()
    _poison(link)
    with _never_waiting():
        link.combine(partial, sent, returned)
    assert torch.equal(returned[:used], partial[:used])
    assert returned[used:].isnan().all()


def test_transfers_in_a_row_do_not_disturb_each_other(link, plan: rows.SentRows) -> None:  # type: ignore[no-untyped-def]
    """On two streams, as different variants use them, one waiting for the other; never for the host."""
    side = torch.cuda.Stream(priority=-1)
    partials = [torch.randn(CAPACITY, H, device="cuda").bfloat16() for _ in range(4)]
    returned = [_room() for _ in partials]
    counts = [CAPACITY, A_CHUNK + 1, TWELVE + 2, 1]
    sent = [_counted(plan, used) for used in counts]
    _poison(link)
    with _never_waiting():
        for index in range(4):
            main = torch.cuda.current_stream()
            on = side if index % 2 else main
            on.wait_stream(main if index % 2 else side)
            with torch.cuda.stream(on):
                link.combine(partials[index], sent[index], returned[index])
        torch.cuda.current_stream().wait_stream(side)
    for partial, back, used in zip(partials, returned, counts, strict=True):
        assert torch.equal(back[:used], partial[:used])
        assert back[used:].isnan().all()


def test_a_transfer_waits_for_its_rows_and_the_stream_for_the_transfer(link, plan: rows.SentRows) -> None:  # type: ignore[no-untyped-def]
    """Behind a long kernel: rows are read after it, the host does not wait, and what follows sees them all."""
    sent = _counted(plan, CAPACITY)
    partial, back, seen = _room(), _room(), _room()
    link.combine(partial, sent, back)
    torch.cuda.synchronize()
    started_s = time.perf_counter()
    torch.cuda._sleep(int(0.3 * CYCLES_PER_S))
    partial.fill_(1.0)
    link.combine(partial, sent, back)
    partial.fill_(2.0)
    seen.copy_(back)
    issued_s = time.perf_counter() - started_s
    done = torch.cuda.Event()
    done.record()
    assert not done.query()
    assert issued_s < 0.1, f"the host took {issued_s:.3f} s behind a kernel of 0.3 s: it waited"
    assert (seen == 1).all()


def test_both_engines_work_at_once(link, plan: rows.SentRows) -> None:  # type: ignore[no-untyped-def]
    """Out and back in little more than one way's time. Prints what was reached and what issuing cost the host."""
    timer = CudaEventTimer()
    source, target = _room(32768), _room(32768)
    x = torch.randn(4096, H, device="cuda").bfloat16()
    index = torch.randint(0, 4096, (32768,), device="cuda", dtype=torch.int32)
    reached = {}
    for used in (64, 512, 1340, 5376, 21504, 32768):
        sent = replace(_counted(plan, used), token_M=index)
        for name, send in (
            ("dispatch", lambda sent=sent: link.dispatch(x, sent, target)),
            ("combine", lambda sent=sent: link.combine(source, sent, target)),
        ):
            send()
            taken_s = median(timer.device_time_s(send) for _ in range(5))
            torch.cuda.synchronize()
            started_s = time.perf_counter()
            send()
            issued_s = time.perf_counter() - started_s
            torch.cuda.synchronize()
            reached[name, used] = used * ROW / taken_s
            print(
                f"host_link {name} {used * ROW / 1e6:.1f} MB in {len(chunks(used * ROW))} chunks: "
                f"{taken_s * 1e3:.3f} ms, {reached[name, used] / 1e9:.1f} GB/s each way at once, "
                f"issued in {issued_s * 1e3:.3f} ms"
            )
    assert reached["combine", 32768] > 20e9, reached
    assert reached["dispatch", 32768] > 20e9, reached
    pinned = torch.empty(2**28, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    one_way = {
        "out": median(timer.device_time_s(lambda: pinned.copy_(device, non_blocking=True)) for _ in range(3)),
        "in": median(timer.device_time_s(lambda: device.copy_(pinned, non_blocking=True)) for _ in range(3)),
    }
    print({way: f"{2**28 / taken / 1e9:.1f} GB/s alone" for way, taken in one_way.items()})
    rate_of_one_after_the_other = 2**28 / sum(one_way.values())
    assert reached["combine", 32768] > 1.3 * rate_of_one_after_the_other, "the two ways did not overlap"


@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize(("precision", "experts"), [("bf16", "torch"), ("nvfp4-w4a16", "triton")])
def test_every_variant_agrees_with_the_oracle_and_with_the_serial_run(
    precision: Precision, experts: str, receive: Receive
) -> None:
    target = small_target(precision, HOST_LINK, tokens=1030)
    for split in (2, 4):
        for order in ("yield_after", "yield_before"):
            overlapped = Variant(experts, split_factor=split, receive=receive, order=order)
            finals = {}
            for variant in (overlapped.unsplit(), overlapped.split_serial(), overlapped):
                target.poison(variant)
                _poison(target._transport)
                run = target.run(variant, ignore)
                final, traces = run.traced()
                for layer, trace in enumerate(traces):
                    assert errors(trace.y_TH, target.oracle(layer, trace)).within(1e-2), (variant.label, layer)
                for _ in range(10):
                    assert torch.equal(run(), final), variant.label
                finals[variant.role] = final
            assert torch.equal(finals["T2s"], finals["T2o"])
            if target.batch_invariant(overlapped):
                assert torch.equal(finals["T1"], finals["T2o"])


@pytest.fixture(scope="module")
def large() -> Target:
    return small_target("bf16", HOST_LINK, tokens=8192)


def test_communication_is_hidden_behind_compute(large: Target) -> None:
    """Comm that takes about as long as compute: the overlapped run must be well under the serial one."""
    overlapped = Variant("torch")
    timer = CudaEventTimer()
    runs = {variant.role: large.run(variant, ignore) for variant in (overlapped.split_serial(), overlapped)}
    for run in runs.values():
        run()
    taken_s = {role: median(timer.time_s(run) for _ in range(10)) for role, run in runs.items()}
    print({role: f"{taken * 1e3:.2f} ms" for role, taken in taken_s.items()})
    assert taken_s["T2o"] < 0.9 * taken_s["T2s"], taken_s


def test_no_variant_under_worst_case_waits_for_the_device_while_it_is_issued(large: Target) -> None:
    for variant in (Variant("torch").unsplit(), Variant("torch").split_serial(), Variant("torch", split_factor=4)):
        run = large.run(variant, ignore)
        run()
        with _never_waiting():
            run()
