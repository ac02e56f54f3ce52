"""A transfer over a modelled link: copies its rows through HBM and holds its SMs until the link would be done.

The link is one resource in device memory: ``free_at = max(free_at, now) + bytes / bandwidth``, and the transfer is over
at ``free_at + alpha``. Each CTA has 32 warps and 64 registers a thread, all of an SM's registers, so that nothing else
runs beside it (a GPU test reads %smid). The registers are in use: a CTA's last rows stay in them until the link
delivers. The inline PTX (%globaltimer, %smid) cannot be interpreted; CI checks it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import globaltimer, smid

from moe_impl.kernels.launch import check, row_block
from moe_impl.options import LinkTime
from moe_impl.support import PACED_WIDTH

WARPS = 32
MAX_REGISTERS = 64
"""32 warps x 32 threads x 64 registers = 65536, the register file of one SM."""
LEAST_BLOCK = 1024
MORE, FEW = 8, 2
"""Rows of PACED_WIDTH values in flight, as powers of two: 80 bf16 values in 40 registers of a thread. With addresses
that is more than 56, which the hardware rounds up to 64. Of narrower rows as many more are in flight."""
STATE_WORDS = 4
"""int64: [tickets taken, transfers published, free_at_ns, deadline_ns]."""


@triton.jit
def load_tile(source, index, first, num_rows, width, ROWS: tl.constexpr, BLOCK: tl.constexpr, GATHER: tl.constexpr):
    rows = first + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    origin = rows.to(tl.int64)
    if GATHER:
        origin = tl.load(index + rows, mask=rows < num_rows, other=0).to(tl.int64)
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    return tl.load(source + origin[:, None] * width + columns[None, :], mask=inside, other=0.0)


@triton.jit
def store_tile(target, values, first, num_rows, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    rows = first + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    tl.store(target + rows.to(tl.int64)[:, None] * width + columns[None, :], values, mask=inside)


@triton.jit
def paced_link_kernel(
    source, target, index, count, counted, state, trace, width, row_bytes, ns_per_byte, alpha_ns,
    MORE: tl.constexpr, FEW: tl.constexpr, BLOCK: tl.constexpr, GATHER: tl.constexpr, TRACE: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    ctas = tl.num_programs(0)
    num_rows = tl.load(count)
    # Transfers follow each other on one stream, so tickets of one transfer are consecutive: the first is elected.
    ticket = tl.atomic_add(state, 1)
    transfer = ticket // ctas + 1
    if ticket % ctas == 0:
        now = globaltimer()
        free_at = tl.maximum(tl.load(state + 2), now)
        free_at += (tl.load(counted).to(tl.float64) * row_bytes * ns_per_byte).to(tl.int64)
        tl.store(state + 2, free_at)
        tl.store(state + 3, free_at + alpha_ns)
        tl.debug_barrier()
        tl.atomic_xchg(state + 1, transfer, sem="release")
    if TRACE:
        tl.store(trace + 3 * pid, smid().to(tl.int64))
        tl.store(trace + 3 * pid + 1, globaltimer())
    stride = MORE + FEW
    first = pid * stride
    more = load_tile(source, index, first, num_rows, width, MORE, BLOCK, GATHER)
    few = load_tile(source, index, first + MORE, num_rows, width, FEW, BLOCK, GATHER)
    for following in range(first + ctas * stride, num_rows, ctas * stride):
        store_tile(target, more, first, num_rows, width, MORE, BLOCK)
        store_tile(target, few, first + MORE, num_rows, width, FEW, BLOCK)
        first = following
        more = load_tile(source, index, first, num_rows, width, MORE, BLOCK, GATHER)
        few = load_tile(source, index, first + MORE, num_rows, width, FEW, BLOCK, GATHER)
    while tl.atomic_add(state + 1, 0, sem="acquire") < transfer:
        pass
    deadline = tl.load(state + 3, volatile=True)
    while globaltimer() < deadline:
        pass
    store_tile(target, more, first, num_rows, width, MORE, BLOCK)
    store_tile(target, few, first + MORE, num_rows, width, FEW, BLOCK)
    if TRACE:
        tl.store(trace + 3 * pid + 2, globaltimer())


def tiles(width: int) -> tuple[int, int, int]:
    """(BLOCK, MORE, FEW) for rows of ``width`` values: as many values in flight whatever the width."""
    block = max(LEAST_BLOCK, row_block(width))
    return block, MORE * PACED_WIDTH // block, FEW * PACED_WIDTH // block


def new_state(device: torch.device) -> Tensor:
    """A link on which nothing was sent yet."""
    return torch.zeros(STATE_WORDS, dtype=torch.int64, device=device)


def paced_move(
    source: Tensor,
    target_MH: Tensor,
    count: Tensor,
    state: Tensor,
    time: LinkTime,
    comm_sms: int,
    index_M: Tensor | None = None,
    counted: Tensor | None = None,
    row_bytes: int | None = None,
    trace: Tensor | None = None,
) -> None:
    """``move_rows`` over a link: same arguments, plus the link.

    Args:
        counted: int32 [1], rows that the link's time is made of; default ``count``, the rows that are moved.
        row_bytes: of a counted row, which may be less than its buffer's; default all of it.
        state: int64 [4] from :func:`new_state`, shared by all transfers of the link.
        time: alpha and bandwidth of this direction; bytes are those of ``counted`` rows.
        comm_sms: CTAs, each on an SM of its own.
        trace: int64 [comm_sms, 3], receives each CTA's SM, start and end in global nanoseconds (tests only).
    """
    check(source.shape[1] == target_MH.shape[1], f"row widths differ: {source.shape[1]} and {target_MH.shape[1]}")
    check(comm_sms >= 1, f"a paced link needs a CTA, got comm_sms {comm_sms}")
    width = target_MH.shape[1]
    check(width <= PACED_WIDTH, f"rows of up to {PACED_WIDTH} values, got {width}")
    block, more, few = tiles(width)
    paced_link_kernel[(comm_sms,)](
        source, target_MH, index_M, count, count if counted is None else counted, state, trace,
        width, row_bytes or width * target_MH.element_size(),
        1e9 / time.bandwidth_bytes_per_s, round(time.alpha_s * 1e9),
        more, few, block, index_M is not None, trace is not None,
        num_warps=WARPS, maxnreg=MAX_REGISTERS,
    )  # fmt: skip
