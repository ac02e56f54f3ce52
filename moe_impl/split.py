"""Where a batch is cut into micro-batches, and whether it is cut at all. Torch-free.

Micro-batches may be empty: fewer tokens than micro-batches, or a ratio that rounds to nothing.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from moe_impl.options import Variant


def turned_off(variant: Variant, tokens: int) -> bool:
    """The batch has fewer tokens than the variant's split wants: it runs unsplit and serial."""
    return tokens < variant.split.min_tokens


def as_run(variant: Variant, tokens: int) -> Variant:
    """The variant, or its unsplit serial run where it turns itself off."""
    return variant.unsplit() if turned_off(variant, tokens) else variant


def token_slices(variant: Variant, tokens: int, rows_T: Callable[[], Sequence[int]]) -> list[slice]:
    """Contiguous shares of the batch, one a micro-batch, in order; some may be empty.

    Args:
        variant: as run (:func:`as_run`).
        tokens: T of the whole batch.
        rows_T: rows that each of the T tokens sends; asked by policy ``balanced`` alone.

    Raises:
        ValueError: policy ``ratio`` with another number of micro-batches than two.
    """
    num_ubatches = variant.split_factor
    match variant.split.policy:
        case "ratio" if num_ubatches == 2:
            cuts = [_first_share(variant, tokens)]
        case "ratio":
            raise ValueError(f"a ratio cuts a batch in 2, not in {num_ubatches}")
        case "balanced":
            cuts = _balanced_cuts(rows_T(), num_ubatches)
        case "equal":
            share, extra = divmod(tokens, num_ubatches)
            cuts = [ubatch * share + min(ubatch, extra) for ubatch in range(1, num_ubatches)]
    return [slice(begin, end) for begin, end in pairwise([0, *cuts, tokens])]


def _balanced_cuts(rows_T: Sequence[int], num_ubatches: int) -> list[int]:
    """Each cut is where the rows before it are nearest to its share of all rows, the earlier place on a tie."""
    before = [0, *accumulate(rows_T)]
    cuts = []
    for ubatch in range(1, num_ubatches):
        wanted = before[-1] * ubatch / num_ubatches
        after = bisect_left(before, wanted)
        nearest = after - 1 if after and wanted - before[after - 1] <= before[after] - wanted else after
        cuts.append(nearest)
    return cuts


def largest_share(variant: Variant, tokens: int) -> int:
    """Tokens of the largest micro-batch; for ``balanced``, whose cuts need the routing, those of an even load."""
    ran = as_run(variant, tokens)
    if ran.split.policy != "ratio":
        return math.ceil(tokens / ran.split_factor)
    first = _first_share(ran, tokens)
    return max(first, tokens - first)


def capacity_tokens(variant: Variant, tokens: int) -> int:
    """Tokens of a rank for which a micro-batch's worst-case buffers have room: its share of ``max_tokens_per_rank``."""
    room_for = tokens if variant.max_tokens_per_rank is None else variant.max_tokens_per_rank
    return largest_share(as_run(variant, tokens), room_for)


def room(variant: Variant, slices: Sequence[slice]) -> int | None:
    """Tokens of a rank for which every micro-batch's buffers have room, as a server sizes them once.

    None: each has room for its own, where no ``max_tokens_per_rank`` is given, or the buffers fit what came. A
    ``balanced`` cut may be larger than the share that ``capacity_tokens`` expects.
    """
    if variant.max_tokens_per_rank is None or variant.receive == "exact":
        return None
    sizes: list[int] = [tokens.stop - tokens.start for tokens in slices]
    return max(*sizes, capacity_tokens(variant, sum(sizes)))


def _first_share(variant: Variant, tokens: int) -> int:
    return round(variant.split.ratio * tokens)
