"""The closed list of stages and the lane each one runs on. Torch-free."""

from enum import StrEnum
from typing import Literal

Lane = Literal["compute", "comm"]


class Stage(StrEnum):
    """One step of an MoE layer, in the order in which a micro-batch passes them."""

    ATTENTION = "attention"
    """The stand-in for the layer's attention: x to what the MoE reads."""
    ROUTE = "route"
    """Logits to top-k ids and weights, and which rows go to which rank."""
    QUANTIZE = "quantize"
    """Activations to the payload that travels; after dispatch where bf16 travels and the experts read less."""
    DISPATCH = "dispatch"
    """Move one row per (token, destination rank) to the ranks that hold its experts."""
    SHARED = "shared"
    """Experts that every token passes, on its own rank: nothing of them travels, so they may run beside dispatch."""
    PERMUTE = "permute"
    """Sort the received rows by local expert."""
    GEMM1 = "gemm1"
    """Gate and up projections, grouped by expert: [P, H] to [P, 2I]."""
    SILU_MUL = "silu_mul"
    """silu(gate) * up: [P, 2I] to [P, I]."""
    GEMM2 = "gemm2"
    """Down projection, grouped by expert: [P, I] to [P, H]."""
    REDUCE = "reduce"
    """A row's weighted partial sum over its local experts, before combine: [P, H] to [M, H]."""
    COMBINE = "combine"
    """Move the partial sums back to the ranks that own the tokens."""
    MERGE = "merge"
    """Total over ranks, and the next layer's input."""


COMM_STAGES = frozenset({Stage.DISPATCH, Stage.COMBINE})


def lane_of(stage: Stage) -> Lane:
    """The lane on which a stage is issued when the engine overlaps."""
    return "comm" if stage in COMM_STAGES else "compute"
