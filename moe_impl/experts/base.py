"""What an experts backend is, and the table of them."""

from typing import Any, Protocol

from moe_impl.options import ExpertsName
from moe_impl.state import UbatchState
from moe_impl.weights import LayerWeights


class ExpertsBackend(Protocol):
    """The three expert stages of one layer, on worst-case buffers whose counts are on the device."""

    deterministic: bool
    """Same rows, same bits: a split serial and a split overlapped run agree exactly."""
    batch_invariant: bool
    """A row's result does not depend on the other rows: unsplit and split runs agree exactly, too."""

    def prepare(self, weights: LayerWeights) -> Any:
        """Lay one layer's weights out for this backend, once."""
        ...

    def gemm1(self, prepared: Any, state: UbatchState) -> None:
        """permuted_PH to gate_up_PJ."""
        ...

    def silu_mul(self, prepared: Any, state: UbatchState) -> None:
        """gate_up_PJ to h_PI."""
        ...

    def gemm2(self, prepared: Any, state: UbatchState) -> None:
        """h_PI to outputs_PH."""
        ...


def backend(name: ExpertsName, pairs_per_token: float) -> ExpertsBackend:
    """The backend a variant names; imports it only now, since ``triton`` needs triton.

    Args:
        pairs_per_token: expected pairs per local expert and token of a micro-batch, K / L.
    """
    match name:
        case "triton":
            from moe_impl.experts.triton_backend import TritonExperts

            return TritonExperts(pairs_per_token)
        case "torch":
            from moe_impl.experts.torch_backend import TorchExperts

            return TorchExperts()
