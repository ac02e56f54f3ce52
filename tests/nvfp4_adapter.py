"""What an NVFP4 checker looks for, on top of moe_impl: quantize, dequantize, swizzle and moe (float64)."""

import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checker runs outside pytest, perhaps uninstalled

from moe_impl.nvfp4 import NvFp4Tensor, Rule, dequantize, quantize, swizzle
from moe_impl.reference import ActivationQuantization, moe_layer
from moe_impl.shapes import Router

__all__ = ["dequantize", "moe", "quantize", "swizzle"]


def moe(
    x: Tensor,
    router_logits: Tensor,
    top_k: int,
    w13: Tensor,
    w13_scale: Tensor,
    w13_scale_2: Tensor,
    w2: Tensor,
    w2_scale: Tensor,
    w2_scale_2: Tensor,
    w13_input_scale: Tensor | None = None,
    w2_input_scale: Tensor | None = None,
    rule: Rule = "modelopt",
) -> Tensor:
    """y [T, H] float64, routed by the renormalised softmax top-k. With input scales (0-d or [E]) W4A4, else W4A16."""
    activations = None
    if w13_input_scale is not None and w2_input_scale is not None:
        activations = ActivationQuantization(w13_input_scale, w2_input_scale, rule)
    return moe_layer(
        x,
        router_logits.double(),
        NvFp4Tensor(w13, w13_scale, w13_scale_2),
        NvFp4Tensor(w2, w2_scale, w2_scale_2),
        Router(),
        top_k,
        compute_dtype=torch.float64,
        activations=activations,
    )
