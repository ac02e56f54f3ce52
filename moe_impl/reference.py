"""The oracle: an MoE layer in plain torch, one function a step, no tricks, no kernel.

It shares nothing with what it judges but the FP8 and NVFP4 formats and the router.

Letters as in :mod:`moe_impl.shapes`; P is the pairs of one expert here. It waits for the device where that is simpler.
"""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from moe_impl.fp8 import Fp8Tensor, quantize_rows
from moe_impl.nvfp4 import NvFp4Tensor, Rule, decode_bf16, quantize
from moe_impl.routing import select_experts
from moe_impl.shapes import Router

Weights: TypeAlias = Tensor | Fp8Tensor | NvFp4Tensor
"""[L, N, K] of L experts. FP8 weights say that x and h are quantized, too, each row by its own largest magnitude."""


@dataclass(frozen=True)
class ActivationQuantization:
    """W4A4: what quantizes x before gemm1 and h before gemm2."""

    w13_input_scale: Tensor
    """fp32 decode scale of x: 0-d, or [L], one for each local expert."""
    w2_input_scale: Tensor
    """The same of h."""
    rule: Rule = "modelopt"


@dataclass(frozen=True)
class SharedWeights:
    """Experts that every token passes, unweighted, as one of L = 1."""

    w13: Weights
    w2: Weights
    activations: ActivationQuantization | None = None


def expert_outputs(
    x_TH: Tensor,
    ids_TK: Tensor,
    w13: Weights,
    w2: Weights,
    *,
    compute_dtype: torch.dtype = torch.float32,
    gate_up_dtype: torch.dtype | None = None,
    activations: ActivationQuantization | None = None,
) -> Tensor:
    """w2 @ (silu(gate) * up) of every (token, chosen expert), unweighted: compute_dtype [T, K, H].

    Args:
        x_TH: bf16 [T, H].
        ids_TK: global expert ids; expert e uses local weights e mod L.
        w13: [L, 2I, H], gate rows first, then up; bf16, FP8, or NVFP4 (then exactly e2m1 * e4m3 * tensor scale).
        w2: [L, H, I].
        compute_dtype: float32 or float64. fp32 multiplies by the scales of tensors, or of rows and channels, after the
            matmul, as every fp32 epilogue does; h is not rounded on its way to gemm2 but to fp32, where it
            is quantized.
        gate_up_dtype: to what gemm1's output is rounded, as kernels that are not fused with SwiGLU write it. It matters
            where h is quantized: another last bit of gate or up flips codes of h. None: not at all.
        activations: W4A4 only: what quantizes x and h.

    Raises:
        ValueError: another compute_dtype.
    """
    if compute_dtype not in (torch.float32, torch.float64):
        raise ValueError(f"compute_dtype must be float32 or float64, got {compute_dtype}")
    num_local = _num_experts(w13)
    local_TK = ids_TK % num_local
    outputs_TKH = x_TH.new_empty(*ids_TK.shape, x_TH.shape[1], dtype=compute_dtype)
    in_scales = h_scales = None
    rule: Rule = "modelopt"
    if activations is not None:
        in_scales = activations.w13_input_scale.expand(num_local)
        h_scales = activations.w2_input_scale.expand(num_local)
        rule = activations.rule
    for expert in range(num_local):
        token_P, slot_P = torch.where(local_TK == expert)
        gate_up = _linear(x_TH[token_P], w13, expert, in_scales, rule, compute_dtype)
        if gate_up_dtype is not None:
            gate_up = gate_up.to(gate_up_dtype).to(compute_dtype)
        gate, up = gate_up.chunk(2, -1)
        outputs_TKH[token_P, slot_P] = _linear(
            torch.nn.functional.silu(gate) * up, w2, expert, h_scales, rule, compute_dtype
        )
    return outputs_TKH


def _num_experts(weights: Weights) -> int:
    """L."""
    match weights:
        case NvFp4Tensor():
            return len(weights.packed)
        case Fp8Tensor():
            return len(weights.codes)
        case _:
            return len(weights)


def _linear(
    x_PK: Tensor, weights: Weights, expert: int, scales_L: Tensor | None, rule: Rule, dtype: torch.dtype
) -> Tensor:
    """x @ W[expert]^T in dtype, x quantized first where there are scales for it; tensor scales come last."""
    if isinstance(weights, Fp8Tensor):
        return _linear_fp8(x_PK, weights, expert, dtype)
    if scales_L is not None:
        x_PK = decode_bf16(*quantize(x_PK.float(), scales_L[expert], rule))
    if isinstance(weights, NvFp4Tensor):
        weight_NK = decode_bf16(weights.packed[expert], weights.scales[expert])
    else:
        weight_NK = weights[expert]
    out_PN = x_PK.to(dtype) @ weight_NK.to(dtype).t()
    if isinstance(weights, NvFp4Tensor):
        out_PN = out_PN * weights.global_scale[expert].to(dtype)
    if scales_L is not None:
        out_PN = out_PN * scales_L[expert].to(dtype)
    return out_PN


def _linear_fp8(x_PK: Tensor, weights: Fp8Tensor, expert: int, dtype: torch.dtype) -> Tensor:
    """The same of codes: the scales of rows and of channels come last."""
    codes_PK, scale_P = quantize_rows(x_PK.float())
    out_PN = codes_PK.to(dtype) @ weights.codes[expert].to(dtype).t()
    return out_PN * scale_P[:, None].to(dtype) * weights.scales[expert].to(dtype)


def combine_exact(outputs_TKH: Tensor, weights_TK: Tensor) -> Tensor:
    """Weighted sum over the K experts in the outputs' dtype, without any rounding of a row: [T, H]."""
    return (outputs_TKH * weights_TK.to(outputs_TKH.dtype)[..., None]).sum(1)


def combine_by_rank(
    outputs_TKH: Tensor,
    ids_TK: Tensor,
    weights_TK: Tensor,
    num_experts: int,
    ep_size: int,
    shared_TH: Tensor | None = None,
) -> Tensor:
    """Weighted sum as R ranks make it: bf16 [T, H].

    An expert output is rounded to bf16. The row (t, r) that rank r returns is the fp32 sum, over t's experts on r in
    ascending id, of weight x output (a multiplication and an addition each, both rounded), rounded once to bf16. y is
    the fp32 sum of t's rows over ranks 0..R-1 and then of the shared experts' output (rounded to bf16), rounded once; a
    rank without experts of t adds nothing.

    Args:
        outputs_TKH: [T, K, H] in any float dtype.
        ids_TK: global ids, ascending within a token.
        weights_TK: [T, K], used in fp32.
        num_experts: E.
        ep_size: R, a divisor of E; rank r holds ids r * E/R up to (r + 1) * E/R.
        shared_TH: the shared experts' output, in any float dtype.

    Raises:
        ValueError: R does not divide E.
    """
    if num_experts % ep_size:
        raise ValueError(f"ep_size {ep_size} does not divide {num_experts} experts")
    rank_TK = ids_TK // (num_experts // ep_size)
    T, K, H = outputs_TKH.shape
    total_TH = torch.zeros(T, H, dtype=torch.float32, device=outputs_TKH.device)
    for rank in range(ep_size):
        partial_TH = torch.zeros_like(total_TH)
        for slot in range(K):
            term_TH = weights_TK[:, slot, None].float() * outputs_TKH[:, slot].bfloat16().float()
            partial_TH = torch.where(rank_TK[:, slot, None] == rank, partial_TH + term_TH, partial_TH)
        sent_T1 = (rank_TK == rank).any(1, keepdim=True)
        total_TH = torch.where(sent_T1, total_TH + partial_TH.bfloat16().float(), total_TH)
    if shared_TH is not None:
        total_TH += shared_TH.bfloat16().float()
    return total_TH.bfloat16()


def combine_by_peer(
    outputs_PH: Tensor, experts_TRK: Tensor, weights_TRK: Tensor, shared_TH: Tensor | None = None
) -> Tensor:
    """Weighted sum of what one rank makes of its peers' copies of each token: bf16 [T, H].

    Rounding is that of :func:`combine_by_rank`, with peers in the place of ranks: the row (t, p) is the sum over the
    experts that peer p chose here for token t, and y is the sum of t's rows over peers 0..R-1.

    Args:
        outputs_PH: of every (token, peer, slot) with an expert, in this order, in any float dtype.
        experts_TRK: local ids, ascending within a row, -1 where a slot has no expert here.
        weights_TRK: used in fp32.
        shared_TH: the shared experts' output, in any float dtype.
    """
    here_TRK = experts_TRK >= 0
    T, num_peers, K = experts_TRK.shape
    pair_TRK = (here_TRK.flatten().cumsum(0) - 1).view_as(experts_TRK)
    total_TH = torch.zeros(T, outputs_PH.shape[1], dtype=torch.float32, device=outputs_PH.device)
    for peer in range(num_peers):
        partial_TH = torch.zeros_like(total_TH)
        for slot in range(K):
            token_S = torch.where(here_TRK[:, peer, slot])[0]
            output_SH = outputs_PH[pair_TRK[token_S, peer, slot]].bfloat16().float()
            partial_TH[token_S] += weights_TRK[token_S, peer, slot, None].float() * output_SH
        total_TH += partial_TH.bfloat16().float()  # 0 where peer p's copy has no expert here
    if shared_TH is not None:
        total_TH += shared_TH.bfloat16().float()
    return total_TH.bfloat16()


def next_input(x_TH: Tensor, y_TH: Tensor) -> Tensor:
    """The next layer's input bf16(x + y / rms(y)), in fp32, rms over H; x where a token's y is all zero."""
    y32_TH = y_TH.float()
    rms_T1 = y32_TH.square().mean(-1, keepdim=True).sqrt()
    step_TH = torch.where(rms_T1 > 0, y32_TH / rms_T1, 0.0)
    return (x_TH.float() + step_TH).bfloat16()


def moe_layer(
    x_TH: Tensor,
    logits_TE: Tensor,
    w13: Weights,
    w2: Weights,
    router: Router,
    top_k: int,
    *,
    selection_bias_E: Tensor | None = None,
    ep_size: int | None = None,
    compute_dtype: torch.dtype = torch.float32,
    gate_up_dtype: torch.dtype | None = None,
    activations: ActivationQuantization | None = None,
    shared: SharedWeights | None = None,
) -> Tensor:
    """One whole layer, y [T, H]: bf16 as ``ep_size`` ranks combine it, or with None the plain sum in compute_dtype.

    Arguments and errors as in :func:`select_experts`, :func:`expert_outputs` and :func:`combine_by_rank`.
    """
    ids_TK, weights_TK = select_experts(logits_TE, router, top_k, selection_bias_E)
    outputs_TKH = expert_outputs(
        x_TH, ids_TK, w13, w2, compute_dtype=compute_dtype, gate_up_dtype=gate_up_dtype, activations=activations
    )
    shared_TH = _shared_output(x_TH, shared, compute_dtype, gate_up_dtype)
    if ep_size is None:
        y_TH = combine_exact(outputs_TKH, weights_TK)
        return y_TH if shared_TH is None else y_TH + shared_TH
    return combine_by_rank(outputs_TKH, ids_TK, weights_TK, logits_TE.shape[1], ep_size, shared_TH)


def skewed_layer(
    x_TH: Tensor,
    experts_TRK: Tensor,
    weights_TRK: Tensor,
    w13: Weights,
    w2: Weights,
    *,
    compute_dtype: torch.dtype = torch.float32,
    gate_up_dtype: torch.dtype | None = None,
    activations: ActivationQuantization | None = None,
    shared: SharedWeights | None = None,
) -> Tensor:
    """One layer of a rank whose R peers chose experts for copies of its own tokens: y bf16 [T, H].

    Arguments and errors as in :func:`expert_outputs` and :func:`combine_by_peer`; a copy is what its token is.
    """
    token_P, peer_P, slot_P = torch.where(experts_TRK >= 0)
    expert_P1 = experts_TRK[token_P, peer_P, slot_P, None]
    outputs_PH = expert_outputs(
        x_TH[token_P],
        expert_P1,
        w13,
        w2,
        compute_dtype=compute_dtype,
        gate_up_dtype=gate_up_dtype,
        activations=activations,
    )[:, 0]
    shared_TH = _shared_output(x_TH, shared, compute_dtype, gate_up_dtype)
    return combine_by_peer(outputs_PH, experts_TRK, weights_TRK, shared_TH)


def _shared_output(
    x_TH: Tensor, shared: SharedWeights | None, compute_dtype: torch.dtype, gate_up_dtype: torch.dtype | None
) -> Tensor | None:
    """[T, H] of the experts that every token passes; None without any."""
    if shared is None:
        return None
    only_T1 = torch.zeros(len(x_TH), 1, dtype=torch.int32, device=x_TH.device)
    return expert_outputs(
        x_TH,
        only_T1,
        shared.w13,
        shared.w2,
        compute_dtype=compute_dtype,
        gate_up_dtype=gate_up_dtype,
        activations=shared.activations,
    )[:, 0]
