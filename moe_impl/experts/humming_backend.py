"""Backend ``humming``: the grouped GEMM of the package humming-kernels, which vLLM prefers on Hopper (CUDA only).

It reads NVFP4 weights, expands them in registers and leaves the tensor scale to its epilogue, as ours does, and finds
each expert's pairs by offsets on the device. Extra ``peers`` installs it; kernels are compiled as shapes turn up.
"""

import functools
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moe_impl.experts.permute import GathersRows
from moe_impl.experts.torch_backend import silu_mul
from moe_impl.nvfp4 import NvFp4Tensor
from moe_impl.state import UbatchState
from moe_impl.weights import LayerWeights

LOCKS = 2048
"""Of one matrix, for tiles whose K several SMs share: what the library's own layer keeps."""
GROUPED = "grouped_contiguous"
"""Its name for experts whose pairs follow one another."""


@functools.cache
def library() -> Any:
    """The package ``humming``, with the parts used here loaded.

    Its import would start two processes that build what its wheel holds already, beside what is being measured.
    """
    os.environ.setdefault("HUMMING_DISABLE_PARALLEL_BUILD", "1")
    import humming.kernel.humming
    import humming.schema.modelopt
    import humming.transform
    import humming.tune

    return humming


@dataclass(frozen=True)
class HummingMatrix:
    """One projection of all experts in the library's layout."""

    config: Any
    """The library's LayerConfig: shapes and types."""
    codes: Tensor
    scales: Tensor
    global_scale: Tensor
    """float32 [L]."""
    locks: Tensor
    """int32 [LOCKS], 0 between launches: launches that share them must follow one another, as on a compute lane."""


@dataclass(frozen=True)
class HummingWeights:
    """Both projections."""

    w13: HummingMatrix
    w2: HummingMatrix
    zero: Tensor
    """int32 [1]: where the first expert's pairs begin."""


def lay_out(weights: NvFp4Tensor) -> HummingMatrix:
    """Repack [L, N, K] for the library."""
    experts, rows, half = weights.packed.shape
    config, tensors = library().transform.prepare_and_transform_humming_tensors(
        {
            "weight": weights.packed.view(torch.int32),
            "weight_scale": weights.scales,
            "weight_scale_2": weights.global_scale,
        },
        shape_n=rows,
        shape_k=2 * half,
        weight_schema=library().schema.modelopt.ModeloptNvfp4WeightSchema().to_humming_schema(torch.bfloat16),
        num_experts=experts,
        torch_dtype=torch.bfloat16,
        device=weights.packed.device,
    )
    locks = torch.zeros(LOCKS, dtype=torch.int32, device=weights.packed.device)
    return HummingMatrix(config, tensors["weight"], tensors["weight_scale"], tensors["weight_scale_2"], locks)


@functools.cache
def kernel_for(config: Any, pairs: int, device: torch.device) -> Tensor:
    """What launches the library's choice for this many expected pairs in all; compiled at the first call.

    Never with programmatic launch: its kernels read the offsets before they wait for the kernel that wrote them.
    """
    chosen = library().tune.get_heuristics_config(config, shape_m=pairs, gemm_type=GROUPED, device=device)
    launch: Tensor = library().kernel.humming.HummingKernel.prepare_kernels(
        config.to_str(), {"gemm_type": GROUPED}, {**chosen, "use_pdl": False}, device
    )
    return launch


class HummingExperts(GathersRows):
    """See :class:`moe_impl.experts.base.ExpertsBackend`."""

    deterministic = True
    batch_invariant = False  # its tiles, and how many SMs share one tile's K, depend on the number of rows

    def __init__(self, pairs_per_token: float) -> None:
        self._pairs_per_token = pairs_per_token

    def prepare(self, weights: LayerWeights) -> HummingWeights:
        zero = torch.zeros(1, dtype=torch.int32, device=weights.w13.packed.device)
        return HummingWeights(lay_out(weights.w13), lay_out(weights.w2), zero)

    def permute(self, prepared: Any, state: UbatchState) -> None:
        state.pair_offsets = torch.cat((prepared.zero, state.pairs.ends_L))
        super().permute(prepared, state)

    def _multiply(self, x_PK: Tensor, matrix: HummingMatrix, state: UbatchState) -> Tensor:
        if len(x_PK) == 0:
            return x_PK.new_empty(0, matrix.config.shape_n)
        experts = len(state.pairs.ends_L)
        expected = self._pairs_per_token * experts * (state.tokens.stop - state.tokens.start)
        out_PN: Tensor = library().ops.launch_kernel(
            configs=kernel_for(matrix.config, max(1, round(expected)), x_PK.device),
            inputs=x_PK,
            weight=matrix.codes,
            weight_scale=matrix.scales,
            weight_scale_2=matrix.global_scale,
            expert_layout=state.pair_offsets,
            locks=matrix.locks,
        )
        return out_PN

    def gemm1(self, prepared: HummingWeights, state: UbatchState) -> None:
        state.gate_up_PJ = self._multiply(state.permuted_PH, prepared.w13, state)
        state.permuted_PH = None

    def silu_mul(self, prepared: HummingWeights, state: UbatchState) -> None:
        state.h_PI = silu_mul(state.gate_up_PJ, state.pairs.ends_L, None)
        state.gate_up_PJ = None

    def gemm2(self, prepared: HummingWeights, state: UbatchState) -> None:
        state.outputs_PH = self._multiply(state.h_PI, prepared.w2, state)
        state.h_PI = state.pair_offsets = None
