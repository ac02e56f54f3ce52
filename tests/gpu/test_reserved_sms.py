"""SMs left free on a GPU: whole ones, wherever communication is not, at once usable, and no bit changes."""

from dataclasses import dataclass, replace

import pytest
import torch
from small_target import ignore, small_target
from torch import Tensor

from moe_impl.carve_out import leaving_free
from moe_impl.nvfp4 import NvFp4Tensor
from moe_impl.options import CommPriority, Link, LinkTime, Precision, Variant, default_experts

pytestmark = pytest.mark.gpu

FREE, EXPERTS, PAIRS, N, K = 20, 8, 32_768, 4096, 4096
LOADS = (1000, 20)
"""Pairs an expert that the tile is chosen for: x copied by TMA, and row by row."""
SLOW = Link("paced", FREE, (LinkTime("dispatch", 10e-6, 60e9), LinkTime("combine", 10e-6, 60e9)), name="slow")


@dataclass
class Gemm:
    """One grouped GEMM of a few milliseconds, and what its last launch noted of the SMs."""

    x_PK: Tensor
    dense: Tensor
    packed: object
    ends_L: Tensor
    sms: list[Tensor]

    def ours(self, load: float) -> Tensor:
        from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm, tile_for

        return nvfp4_grouped_gemm(self.x_PK, self.packed, self.ends_L, tile_for(load))  # type: ignore[arg-type]

    def theirs(self) -> Tensor:
        return torch._grouped_mm(self.x_PK, self.dense.transpose(1, 2), offs=self.ends_L)

    def in_state(self, state: int) -> set[int]:
        """SMs of that state after the last launch."""
        return set((self.sms[-1][2:] == state).nonzero()[:, 0].tolist())


@pytest.fixture
def gemm(monkeypatch: pytest.MonkeyPatch) -> Gemm:
    from moe_impl.kernels import nvfp4_grouped_gemm as module
    from moe_impl.kernels.nvfp4_fragments import repack

    generator = torch.Generator("cuda").manual_seed(5)
    dense = torch.randn(EXPERTS, N, K, generator=generator, device="cuda").bfloat16()
    x_PK = torch.randn(PAIRS, K, generator=generator, device="cuda").bfloat16()
    ends_L = torch.arange(1, EXPERTS + 1, device="cuda", dtype=torch.int32) * (PAIRS // EXPERTS)
    made: list[Tensor] = []
    new_sms = module.new_sms
    monkeypatch.setattr(module, "new_sms", lambda device: made.append(new_sms(device)) or made[-1])
    return Gemm(x_PK, dense, repack(NvFp4Tensor.from_dense(dense)), ends_L, made)


class Transfer:
    """A transfer of FREE programs that each take a whole SM, on a high-priority stream."""

    def __init__(self, seconds: float) -> None:
        from moe_impl.kernels.paced_link import new_state

        self._rows = torch.zeros(FREE, 7168, device="cuda", dtype=torch.bfloat16)
        self._target = torch.empty_like(self._rows)
        self._count = torch.tensor([FREE], device="cuda", dtype=torch.int32)
        self._time = LinkTime("dispatch", seconds, 1e12)
        self._state = new_state(torch.device("cuda"))
        self._stream = torch.cuda.Stream(priority=-1)
        self.trace = torch.zeros(FREE, 3, device="cuda", dtype=torch.int64)
        self.done = torch.cuda.Event(enable_timing=True)

    def send(self) -> None:
        from moe_impl.kernels.paced_link import paced_move

        with torch.cuda.stream(self._stream):
            paced_move(self._rows, self._target, self._count, self._state, self._time, FREE, trace=self.trace)
            self.done.record()

    @property
    def sms(self) -> set[int]:
        return set(self.trace[:, 0].tolist())


def num_sms() -> int:
    return int(torch.cuda.get_device_properties(0).multi_processor_count)


def computes() -> tuple[int, int]:
    """The words that stand for an SM that computes, and for one left free."""
    from moe_impl.kernels import free_sms

    return free_sms.COMPUTES.value, free_sms.FREE.value


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("free", [1, 8, FREE, 100])
def test_a_gemm_computes_on_all_sms_but_those_left_free_with_the_same_bits(gemm: Gemm, free: int, load: int) -> None:
    plain = gemm.ours(load)
    assert not gemm.sms
    with leaving_free(free):
        found = gemm.ours(load)
    assert torch.equal(found, plain)
    used, left = map(gemm.in_state, computes())
    assert (len(used), len(left)) == (num_sms() - free, free)


@pytest.mark.parametrize("load", LOADS)
def test_a_transfer_issued_behind_a_gemm_ends_before_it_on_sms_of_its_own(gemm: Gemm, load: int) -> None:
    transfer, gemm_done = Transfer(100e-6), torch.cuda.Event(enable_timing=True)
    for _ in range(2):  # the first compiles
        torch.cuda.synchronize()
        with leaving_free(FREE):
            gemm.ours(load)
        gemm_done.record()
        transfer.send()
    torch.cuda.synchronize()
    assert transfer.done.elapsed_time(gemm_done) > 0, "ms from the transfer's end to the GEMM's"
    assert len(transfer.sms) == FREE
    used, _ = map(gemm.in_state, computes())
    assert not transfer.sms & used


@pytest.mark.parametrize("load", LOADS)
def test_sms_that_a_transfer_holds_count_among_those_left_free(gemm: Gemm, load: int) -> None:
    transfer = Transfer(20e-3)
    for _ in range(2):
        torch.cuda.synchronize()
        transfer.send()
        with leaving_free(FREE):
            gemm.ours(load)
    torch.cuda.synchronize()
    used, _ = map(gemm.in_state, computes())
    assert len(used) == num_sms() - FREE, "none is idle beside a transfer that already has its SMs"
    assert not transfer.sms & used


def test_torchs_grouped_matmul_leaves_them_free_too(gemm: Gemm) -> None:
    plain = gemm.theirs()
    transfer, gemm_done = Transfer(100e-6), torch.cuda.Event(enable_timing=True)
    for _ in range(2):
        torch.cuda.synchronize()
        with leaving_free(FREE):
            found = gemm.theirs()
        gemm_done.record()
        transfer.send()
    torch.cuda.synchronize()
    assert transfer.done.elapsed_time(gemm_done) > 0
    assert torch.equal(found, plain)


@pytest.mark.parametrize("precision", ["bf16", "nvfp4-w4a16", "nvfp4"])
@pytest.mark.parametrize("priority", ["high", "default"])
def test_neither_the_reservation_nor_the_priority_changes_a_bit_of_whole_layers(
    precision: Precision, priority: CommPriority
) -> None:
    target = small_target(precision, SLOW, tokens=515)
    plain = Variant(default_experts(precision))
    expected = target.run(plain, ignore)().clone()
    reserved = replace(plain, reserve_sms=FREE, comm_priority=priority)
    for variant in (reserved.split_serial(), reserved):
        target.poison(variant)
        assert torch.equal(target.run(variant, ignore)(), expected), variant.label


def test_a_captured_gemm_leaves_them_free_at_every_replay(gemm: Gemm) -> None:
    plain = gemm.ours(LOADS[0])
    with leaving_free(FREE):
        gemm.ours(LOADS[0])  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = gemm.ours(LOADS[0])
    for _ in range(3):
        found.fill_(torch.nan)
        graph.replay()
        assert torch.equal(found, plain)
    assert len(gemm.in_state(computes()[0])) == num_sms() - FREE


def test_streams_have_the_priority_asked_for() -> None:
    from moe_impl.overlap.cuda_lanes import comm_stream

    device = torch.device("cuda", 0)
    assert [comm_stream(device, asked).priority for asked in ("high", "default")] == [-1, 0]
