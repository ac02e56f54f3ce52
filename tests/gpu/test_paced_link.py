"""The modelled link on a GPU: it moves its rows, takes its time, and owns its SMs."""

import functools

import pytest
import torch

from bench.measure.cuda_timer import CudaEventTimer
from moe_impl.options import LinkTime

pytestmark = pytest.mark.gpu

ROWS, H, CTAS = 4096, 7168, 20


@pytest.fixture
def transfer():  # type: ignore[no-untyped-def]
    from moe_impl.kernels.paced_link import new_state, paced_move

    device = torch.device("cuda")
    source = torch.randn(1000, H, device=device).bfloat16()
    index = torch.randint(0, 1000, (ROWS,), device=device, dtype=torch.int32)
    target = torch.full((ROWS, H), torch.nan, device=device, dtype=torch.bfloat16)
    state = new_state(device)

    counts = torch.arange(ROWS + 1, device=device, dtype=torch.int32)

    def send(used: int, time: LinkTime, trace: torch.Tensor | None = None, charged: int | None = None) -> None:
        counted = None if charged is None else counts[charged : charged + 1]
        paced_move(source, target, counts[used : used + 1], state, time, CTAS, index, counted, trace=trace)

    return source, index, target, send


@pytest.mark.parametrize("used", [0, 1, 9, 10, 11, 199, 200, 201, 4096])
def test_moves_exactly_the_counted_rows(transfer, used: int) -> None:  # type: ignore[no-untyped-def]
    source, index, target, send = transfer
    send(used, LinkTime("dispatch", 0.0, 1e12))
    assert torch.equal(target[:used], source[index[:used].long()])
    assert target[used:].isnan().all()


@pytest.mark.parametrize(("used", "bandwidth"), [(256, 50e9), (1024, 150e9), (4096, 150e9), (4096, 300e9)])
def test_takes_alpha_plus_bytes_over_bandwidth(transfer, used: int, bandwidth: float) -> None:  # type: ignore[no-untyped-def]
    *_, send = transfer
    time = LinkTime("dispatch", 15e-6, bandwidth)
    send(used, time)
    timer = CudaEventTimer()
    taken_s = min(timer.device_time_s(lambda: send(used, time)) for _ in range(5))
    modelled_s = time.seconds(used * H * 2)
    assert modelled_s * 0.99 <= taken_s <= modelled_s * 1.02 + 10e-6, (taken_s, modelled_s)


def test_a_link_that_counts_fewer_rows_charges_those_and_moves_all(transfer) -> None:  # type: ignore[no-untyped-def]
    source, index, target, send = transfer
    time = LinkTime("dispatch", 15e-6, 25e9)
    send(ROWS, time, charged=ROWS // 4)
    assert torch.equal(target, source[index.long()])
    timer = CudaEventTimer()
    taken_s = min(timer.device_time_s(lambda: send(ROWS, time, charged=ROWS // 4)) for _ in range(5))
    modelled_s = time.seconds(ROWS // 4 * H * 2)
    assert modelled_s * 0.99 <= taken_s <= modelled_s * 1.02 + 10e-6, (taken_s, modelled_s)


def test_no_sm_is_shared_with_compute(transfer) -> None:  # type: ignore[no-untyped-def]
    """Small compute CTAs flood the GPU while a transfer runs: on the transfer's SMs none may run beside it."""
    *_, send = transfer
    programs = 40_000
    compute = torch.zeros(programs, 3, device="cuda", dtype=torch.int64)
    link = torch.zeros(CTAS, 3, device="cuda", dtype=torch.int64)
    time = LinkTime("dispatch", 2e-3, 1e12)
    send(ROWS, time, link)  # compiles
    _busy_kernel()[(8,)](compute, 1000, num_warps=4)
    high = torch.cuda.Stream(priority=-1)
    torch.cuda.synchronize()
    _busy_kernel()[(programs,)](compute, 200_000, num_warps=4)
    with torch.cuda.stream(high):
        send(ROWS, time, link)
    torch.cuda.synchronize()
    sms, starts, ends = link.T.cpu()
    assert len(set(sms.tolist())) == CTAS, f"transfer CTAs share SMs: {sorted(sms.tolist())}"
    compute = compute.cpu()
    beside = 0
    for sm, start, end in zip(sms, starts, ends, strict=True):
        during = (compute[:, 1] < end) & (compute[:, 2] > start)
        beside += int((during & (compute[:, 0] != sm)).sum())
        shared = compute[during & (compute[:, 0] == sm)]
        # %globaltimer steps by up to a microsecond.
        overlap_ns = torch.minimum(shared[:, 2], end) - torch.maximum(shared[:, 1], start)
        assert not (overlap_ns > 2_000).any(), f"SM {int(sm)} ran {len(shared)} compute CTAs beside its transfer CTA"
    assert beside > 1000, f"the kernels hardly overlapped: {beside}"


@functools.cache
def _busy_kernel():  # type: ignore[no-untyped-def]
    import triton
    import triton.language as tl
    from triton.language.extra.cuda import globaltimer, smid

    @triton.jit
    def busy(trace, spin_ns):
        pid = tl.program_id(0)
        begin = globaltimer()
        tl.store(trace + 3 * pid, smid().to(tl.int64))
        tl.store(trace + 3 * pid + 1, begin)
        while globaltimer() < begin + spin_ns:
            pass
        tl.store(trace + 3 * pid + 2, globaltimer())

    return busy
