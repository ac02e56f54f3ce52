"""What an experts backend is, and the table of them."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from moe_impl.options import BackendName, Precision
from moe_impl.state import UbatchState
from moe_impl.support import has_fp4
from moe_impl.weights import LayerWeights


class ExpertsBackend(Protocol):
    """The expert stages of one layer, on worst-case buffers whose counts are on the device.

    ``prepared`` is what :meth:`prepare` made of the layer's weights.
    """

    deterministic: bool
    """Same rows, same bits: a split serial and a split overlapped run agree exactly."""
    batch_invariant: bool
    """A row's result does not depend on the other rows: unsplit and split runs agree exactly, too."""

    def prepare(self, weights: LayerWeights) -> Any:
        """Lay one layer's weights out for this backend, once."""
        ...

    def quantize(self, prepared: Any, rows_NH: Tensor, count: Tensor | None = None) -> Tensor:
        """bf16 rows to what the experts read and a quantized dispatch sends: uint8 [N, stored_row_bytes].

        Asked only where ``Workload.quantizes``.

        Args:
            count: int32 [1], how many of the rows count; None: all.
        """
        ...

    def permute(self, prepared: Any, state: UbatchState) -> None:
        """received_MB to permuted_PH, one row a pair in expert order."""
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


@dataclass(frozen=True)
class ReadyExperts:
    """A backend and what it made of every layer's weights."""

    backend: ExpertsBackend
    prepared: list[Any]
    """By layer."""


def backend(
    name: BackendName, precision: Precision, pairs_per_token: float, capability: tuple[int, int] | None = None
) -> ExpertsBackend:
    """The backend a variant names, for a precision that it supports; imports it only now: ``triton`` needs triton.

    Args:
        pairs_per_token: expected pairs per local expert and token of a micro-batch: K / L, or 1 for shared experts.
        capability: of the GPU that it is to run on; None: a CPU.

    Raises:
        ValueError: it does not support the precision, which ``support`` refuses before.
    """
    match name, precision:
        case "triton", "nvfp4-w4a16":
            from moe_impl.experts.triton_backend import TritonExperts

            return TritonExperts(pairs_per_token)
        case "triton", "nvfp4":
            from moe_impl.experts import triton_fp4, triton_w4a4

            kind = triton_fp4.TritonFp4Experts if has_fp4(capability) else triton_w4a4.TritonW4A4Experts
            return kind(pairs_per_token)
        case "humming", "nvfp4-w4a16":
            from moe_impl.experts.humming_backend import HummingExperts

            return HummingExperts(pairs_per_token)
        case "torch", "nvfp4":
            from moe_impl.experts.torch_w4a4 import TorchW4A4Experts

            return TorchW4A4Experts()
        case "torch", "fp8":
            from moe_impl.experts.fp8_backend import TorchFp8Experts

            return TorchFp8Experts()
        case "torch", "bf16" | "nvfp4-w4a16":
            from moe_impl.experts.torch_backend import TorchExperts

            return TorchExperts()
    raise ValueError(f"experts {name} does not support precision {precision}")
