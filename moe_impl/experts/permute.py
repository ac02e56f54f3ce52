"""Rows to pairs, for backends whose rows need no more than that."""

from torch import Tensor

from moe_impl import rows as plain
from moe_impl.rows import Pairs
from moe_impl.state import UbatchState


def gather(rows_MB: Tensor, pairs: Pairs) -> Tensor:
    """One copy of a row per pair, in expert order: [M', B] to [P', B], undefined past the last pair."""
    if not rows_MB.is_cuda:
        return plain.gather_pairs(rows_MB, pairs)
    from moe_impl.kernels.gather_pairs import gather_pairs

    return gather_pairs(rows_MB, pairs)


class GathersRows:
    """A backend that reads bf16 rows."""

    def quantize(self, prepared: object, rows_NH: Tensor, count: Tensor | None = None) -> Tensor:
        raise TypeError("this backend reads bf16 activations")

    def permute(self, prepared: object, state: UbatchState) -> None:
        assert state.received_MB is not None
        assert state.pairs is not None
        state.permuted_PH = gather(state.received_MB, state.pairs)
        state.received_MB = None
