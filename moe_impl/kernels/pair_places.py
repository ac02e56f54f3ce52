"""Where the counted pairs lie in either worst-case layout: for kernels that loop over pairs or tiles, no host wait.

Packed pairs follow one another, so the i-th pair is at place i. In layout ``per_expert`` expert e's pairs begin at
e * expert_stride, and a kernel looks the i-th one up.
"""

import math

import triton
import triton.language as tl


@triton.jit
def lane_spans(lanes, ends_L, expert_stride, L: tl.constexpr, PER_EXPERT: tl.constexpr):
    """:func:`pair_spans` of the given lanes, 0 to EXPERTS: Gluon's have a layout."""
    ends = tl.load(ends_L + lanes, mask=lanes < L, other=0)
    if PER_EXPERT:
        starts = tl.where(lanes < L, lanes * expert_stride, 0)
    else:
        starts = tl.load(ends_L + lanes - 1, mask=(lanes > 0) & (lanes < L), other=0)
    return starts, ends


@triton.jit
def pair_spans(ends_L, expert_stride, L: tl.constexpr, EXPERTS: tl.constexpr, PER_EXPERT: tl.constexpr):
    """int32 [EXPERTS] each: where experts' pairs begin and end; 0 and 0 for lanes from L on."""
    return lane_spans(tl.arange(0, EXPERTS), ends_L, expert_stride, L, PER_EXPERT)


@triton.jit
def lane_place(tile, m_tiles, n_tiles, lanes, starts, ends, tile_ends, BLOCK_M: tl.constexpr, GROUP: tl.constexpr):
    """:func:`tile_place` by the given lanes, 0 to EXPERTS: Gluon's have a layout."""
    group = tile // (GROUP * n_tiles)
    in_group = tl.minimum(m_tiles - group * GROUP, GROUP)
    rest = tile % (GROUP * n_tiles)
    m_tile = group * GROUP + rest % in_group
    n_tile = rest // in_group
    expert = tl.sum((tile_ends <= m_tile).to(tl.int32))
    chosen = lanes == expert
    row_end = tl.sum(tl.where(chosen, ends, 0))
    row_start = tl.sum(tl.where(chosen, starts, 0))
    first_tile = tl.sum(tl.where(lanes == expert - 1, tile_ends, 0))
    first_row = row_start + (m_tile - first_tile) * BLOCK_M
    return expert, first_row, row_end, n_tile


@triton.jit
def tile_place(
    tile, m_tiles, n_tiles, starts, ends, tile_ends, EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr, GROUP: tl.constexpr
):
    """Which part of a grouped GEMM the tile is: its expert, its first row, the end of that expert's, its column tile.

    ``tile_ends`` int32 [EXPERTS] counts the row tiles of the experts up to each. GROUP row tiles share a sweep over
    the columns: their rows and the weights of a few columns stay in L2.
    """
    return lane_place(tile, m_tiles, n_tiles, tl.arange(0, EXPERTS), starts, ends, tile_ends, BLOCK_M, GROUP)


@triton.jit
def program_tiles(tiles, steps, num_sms, program_steps):
    """The program's first tile, and the stride to its next: ``tiles`` of ``steps`` each, in programs of about so many.

    Programs are a multiple of the SMs, so that tiles are shared out evenly; any started beyond it have no tile. Where
    :func:`program_grid` started fewer, they are longer.
    """
    wanted = num_sms * tl.maximum(tiles * steps // (num_sms * program_steps), 1)
    stride = tl.minimum(wanted, tl.num_programs(0))
    first = tl.program_id(0)
    if first >= stride:
        first = tiles
    return first, stride


def expected_tiles(experts: int, pairs_per_expert: float, N: int, block_m: int, block_n: int) -> int:
    """Tiles of ``block_m`` pairs by ``block_n`` of N columns where each expert has its expected pairs."""
    return experts * math.ceil(pairs_per_expert / block_m) * triton.cdiv(N, block_n)


def program_grid(expected: int, most: int, steps: int, num_sms: int, program_steps: int) -> int:
    """Programs to start for :func:`program_tiles`: those that the expected tiles want, the most possible ones at most.

    Of programs for every tile that the room for the worst case could hold, most would find none.
    """
    return min(most, num_sms * max(expected * steps // (num_sms * program_steps), 1))


@triton.jit
def pair_order(ends_L, expert_stride, L: tl.constexpr, EXPERTS: tl.constexpr, PER_EXPERT: tl.constexpr):
    """The number of pairs, and what :func:`pair_place` needs: int32 [EXPERTS], which packed pairs do not read."""
    if PER_EXPERT:
        starts, ends = pair_spans(ends_L, expert_stride, L, EXPERTS, PER_EXPERT)
        counted = tl.cumsum(ends - starts, 0)
        num_pairs = tl.max(counted)
        shifts = ends - counted
    else:
        num_pairs = tl.load(ends_L + L - 1)
        counted = tl.zeros([EXPERTS], tl.int32)
        shifts = counted
    return num_pairs, counted, shifts


@triton.jit
def pair_place(i, counted, shifts, EXPERTS: tl.constexpr, PER_EXPERT: tl.constexpr):
    """The place of the i-th of the counted pairs, which are those below the number of pairs."""
    if PER_EXPERT:
        expert = tl.sum((counted <= i).to(tl.int32))
        place = i + tl.sum(tl.where(tl.arange(0, EXPERTS) == expert, shifts, 0))
    else:
        place = i
    return place
