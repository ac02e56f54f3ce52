"""Stage ``attention``: a layer's projections and attention over KV drawn beforehand, in torch's own kernels.

It stands in for the model's attention: the same multiplications over the same bytes, no norms, no rotary embeddings,
no cache to manage. The new tokens' own keys and values are projected, as a server must, and then dropped: nothing is
written that another micro-batch reads. Nothing waits for the device.

Letters as in :mod:`moe_impl.shapes`, and here: N heads, G KV heads, Q a query's and D a value's width, C cached tokens
of a sequence, Z sequences (1 in prefill, T in decode), V a latent's width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from moe_impl.attention_shapes import GqaShape, MlaShape
from moe_impl.options import Attention, Workload
from moe_impl.weights import generator, normal

ATTENTION = 600_000
"""Generator of layer 0's attention, as in :mod:`moe_impl.weights`; a layer further on is one more."""


@dataclass(frozen=True)
class GqaLayer:
    """One layer's grouped-query attention; all bf16."""

    qkv: Tensor
    """[N Q + 2 G Q, H]: query, key and value rows."""
    output: Tensor
    """[H, N Q]."""
    keys_ZGCQ: Tensor
    values_ZGCQ: Tensor


@dataclass(frozen=True)
class MlaLayer:
    """One layer's multi-head latent attention; all bf16."""

    down: Tensor
    """[q_lora_rank + V, H]: rows of the query's down projection, then of the KV's."""
    query_up: Tensor
    """[N Q, q_lora_rank]; of a head's Q rows the first belong to the part without position."""
    expand: Tensor
    """[N, nope + D, kv_lora_rank]: latent to a head's key (without position), then its value."""
    output: Tensor
    """[H, N D]."""
    latent_ZCV: Tensor
    """The cache: kv_lora_rank values of latent, then the rotary key."""


AttentionLayer = GqaLayer | MlaLayer


def draw_attention(workload: Workload, layer: int, device: torch.device) -> AttentionLayer:
    """Weights of std 1/sqrt(fan-in), which keep activations near unit size, and standard normal KV.

    Raises:
        ValueError: a workload without an attention of known shape, which ``support`` refuses before.
    """
    attention = workload.attention
    if attention is None or attention.shape is None:
        raise ValueError(f"model {workload.model.name} has no attention shape")
    shape, H = attention.shape, workload.model.hidden_size
    cached = (attention.sequences(workload.tokens), attention.context)
    rng = generator(device, workload.seed, ATTENTION + layer)

    def weight(*sizes: int) -> Tensor:
        return normal(sizes, sizes[-1] ** -0.5, rng)

    if isinstance(shape, GqaShape):
        queries, width = shape.heads * shape.head_dim, shape.head_dim
        keys, values = (normal((cached[0], shape.kv_heads, cached[1], width), 1.0, rng) for _ in range(2))
        return GqaLayer(weight(queries + shape.cached_values, H), weight(H, queries), keys, values)
    return MlaLayer(
        weight(shape.q_lora_rank + shape.cached_values, H),
        weight(shape.heads * shape.qk_head_dim, shape.q_lora_rank),
        weight(shape.heads, shape.nope_head_dim + shape.v_head_dim, shape.kv_lora_rank),
        weight(H, shape.heads * shape.v_head_dim),
        normal((*cached, shape.cached_values), 1.0, rng),
    )


class AttentionStandIn:
    """All layers' attention of one workload."""

    def __init__(self, attention: Attention, layers: list[AttentionLayer]) -> None:
        self._attention = attention
        self._layers = layers

    def run(self, x_TH: Tensor, tokens: slice, layer: int) -> Tensor:
        """What the layer's attention makes of some of the rank's tokens: bf16 [T, H].

        Args:
            x_TH: those tokens' activations.
            tokens: which of the rank's batch they are; in decode, whose caches they read.
        """
        if not len(x_TH):
            return x_TH
        shape, weights = self._attention.shape, self._layers[layer]
        sequences = tokens if self._attention.phase == "decode" else slice(None)
        if isinstance(weights, GqaLayer):
            assert isinstance(shape, GqaShape)
            return _gqa(x_TH, weights, sequences, shape)
        assert isinstance(shape, MlaShape)
        down = linear(x_TH, weights.down)[:, : shape.q_lora_rank]
        query_TNQ = linear(down, weights.query_up).unflatten(1, (shape.heads, shape.qk_head_dim))
        if self._attention.phase == "prefill":
            read_TND = _expanded(query_TNQ, weights, shape)
        else:
            read_TND = _absorbed(query_TNQ, weights, weights.latent_ZCV[sequences], shape)
        return linear(read_TND.flatten(1), weights.output)


def _gqa(x_TH: Tensor, weights: GqaLayer, sequences: slice, shape: GqaShape) -> Tensor:
    """Query heads that share a KV head stand in one sequence's row: each key is then read once for all of them."""
    T, G = len(x_TH), shape.kv_heads
    keys, values = weights.keys_ZGCQ[sequences], weights.values_ZGCQ[sequences]
    Z = len(keys)
    queries = linear(x_TH, weights.qkv)[:, : shape.heads * shape.head_dim]
    query = queries.reshape(Z, T // Z, G, -1, shape.head_dim).transpose(1, 2)
    rows_a_head = query.shape[2:4]
    read = scaled_dot_product_attention(query.flatten(2, 3), keys, values)
    return linear(read.unflatten(2, rows_a_head).transpose(1, 2).reshape(T, -1), weights.output)


def _expanded(query_TNQ: Tensor, weights: MlaLayer, shape: MlaShape) -> Tensor:
    """Prefill: [T, N, D]. As many heads at a time as there is room for expanded keys and values."""
    latent_CV = weights.latent_ZCV[0]
    at_once = shape.heads_at_once(len(latent_CV))
    read_TND = query_TNQ.new_empty(*query_TNQ.shape[:2], shape.v_head_dim)
    for first in range(0, shape.heads, at_once):
        some = slice(first, first + at_once)
        read_TND[:, some] = _expanded_heads(query_TNQ[:, some], weights.expand[some], latent_CV, shape)
    return read_TND


def _expanded_heads(query_TNQ: Tensor, expand: Tensor, latent_CV: Tensor, shape: MlaShape) -> Tensor:
    """Some heads' [T, N, D]; what is expanded for them lives no longer than this call.

    Values are padded to the keys' width: torch's flash attention wants them equally wide.
    """
    latent_CR, rotary_CP = latent_CV.split((shape.kv_lora_rank, shape.rope_head_dim), -1)
    expanded = linear(latent_CR, expand.flatten(0, 1)).unflatten(1, expand.shape[:2])
    keys_CNK, values_CND = expanded.split((shape.nope_head_dim, shape.v_head_dim), -1)
    keys_CNQ = torch.cat((keys_CNK, rotary_CP[:, None].expand(-1, len(expand), -1)), -1)
    values_CNQ = pad(values_CND, (0, shape.qk_head_dim - shape.v_head_dim))
    query, keys, values = (each.transpose(0, 1)[None] for each in (query_TNQ, keys_CNQ, values_CNQ))
    read_NTQ = scaled_dot_product_attention(query, keys, values)[0]
    return read_NTQ[..., : shape.v_head_dim].transpose(0, 1)


def _absorbed(query_TNQ: Tensor, weights: MlaLayer, latent_TCV: Tensor, shape: MlaShape) -> Tensor:
    """Decode: [T, N, D]. All heads read the latent; as many tokens at a time as there is room for scores.

    A fused kernel would read the latent once and keep no scores; torch has none this wide.
    """
    rank, nope = shape.kv_lora_rank, shape.nope_head_dim
    keys_NQR, values_NDR = weights.expand.split((nope, shape.v_head_dim), 1)
    absorbed_NTR = torch.bmm(query_TNQ[..., :nope].transpose(0, 1), keys_NQR)
    query_TNV = torch.cat((absorbed_NTR.transpose(0, 1), query_TNQ[..., nope:]), -1).mul_(shape.qk_head_dim**-0.5)
    read_TNR = query_TNV.new_empty(*query_TNV.shape[:2], rank)
    at_once = shape.tokens_at_once(latent_TCV.shape[1])
    for first in range(0, len(latent_TCV), at_once):
        some = slice(first, first + at_once)
        scores_TNC = torch.bmm(query_TNV[some], latent_TCV[some].transpose(1, 2))
        torch.bmm(scores_TNC.softmax(-1), latent_TCV[some, :, :rank], out=read_TNR[some])
    return torch.bmm(read_TNR.transpose(0, 1), values_NDR.transpose(1, 2)).transpose(0, 1)
