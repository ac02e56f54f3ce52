"""FP8 with one scale a row, in plain torch: quantize; any device, no kernel of ours.

Codes are float8_e4m3fn, and every row of the last dimension has one fp32 *decode* scale, as torch's grouped matmul for
Hopper reads them (``torch._scaled_grouped_mm``; DeepEP and DeepSeek-V3 use one scale per 128 values instead):

    value = e4m3 * scale        scale = fl(amax / 448), and the code is fl(x / scale) rounded to e4m3, ties to even

Nothing is divided by a host scalar: on CUDA torch would multiply by that scalar's reciprocal instead.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

E4M3_MAX = torch.finfo(torch.float8_e4m3fn).max


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each row by its own largest magnitude. Leaves x alone.

    The scale of an all-zero row is 1. Only rows whose magnitudes lie at the end of fp32's range saturate: their scale
    would be a subnormal number, or 0 (then it is 1).

    Args:
        x: fp32 or bf16 [..., K], K at least 1.

    Returns:
        codes float8_e4m3fn [..., K] and scales fp32 [...].
    """
    values = x.float()
    amax = values.abs().amax(-1)
    scales = amax / torch.full_like(amax, E4M3_MAX)
    scales = torch.where(scales == 0, 1.0, scales)
    codes = (values / scales[..., None]).clamp_(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    return codes, scales


@dataclass(frozen=True)
class Fp8Tensor:
    """One layer's weights of L experts, each output channel with its own scale."""

    codes: Tensor
    """float8_e4m3fn [L, N, K]."""
    scales: Tensor
    """fp32 [L, N]."""

    @classmethod
    def from_dense(cls, values: Tensor) -> "Fp8Tensor":
        """Quantize [L, N, K], one expert at a time: temporaries stay at one expert's size.

        Raises:
            ValueError: not three dimensions.
        """
        if values.dim() != 3:
            raise ValueError(f"values must be [L, N, K], got shape {tuple(values.shape)}")
        codes = torch.empty(values.shape, dtype=torch.float8_e4m3fn, device=values.device)
        scales = torch.empty(values.shape[:2], dtype=torch.float32, device=values.device)
        for expert, dense in enumerate(values):
            codes[expert], scales[expert] = quantize_rows(dense)
        return cls(codes, scales)
