"""Stage ``shared``: the experts that every token passes on its own rank, as one expert whose pairs are all tokens."""

import torch
from torch import Tensor

from moe_impl.experts.base import ReadyExperts
from moe_impl.rows import Pairs
from moe_impl.state import UbatchState


class SharedExperts:
    """Runs a backend's expert stages on x itself: nothing is routed, sent or sorted."""

    def __init__(self, experts: ReadyExperts, quantizes: bool) -> None:
        self._experts = experts
        self._quantizes = quantizes
        self._pairs: dict[tuple[int, torch.device], Pairs] = {}  # by number of tokens

    def run(self, x_TH: Tensor, layer: int) -> Tensor:
        """bf16 [T, H], unweighted."""
        backend, prepared = self._experts.backend, self._experts.prepared[layer]
        tokens = x_TH.shape[0]
        rows = UbatchState(slice(0, tokens), x_TH, pairs=self._all(tokens, x_TH.device))
        rows.received_MB = backend.quantize(prepared, x_TH) if self._quantizes else x_TH
        for stage in (backend.permute, backend.gemm1, backend.silu_mul, backend.gemm2):
            stage(prepared, rows)
        assert rows.outputs_PH is not None
        return rows.outputs_PH

    def _all(self, tokens: int, device: torch.device) -> Pairs:
        key = (tokens, device)
        if key not in self._pairs:
            self._pairs[key] = Pairs(torch.full((1,), tokens, dtype=torch.int32, device=device), None, None)
        return self._pairs[key]
