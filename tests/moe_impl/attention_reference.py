"""What attention means, one token and one head at a time in fp64: nothing is absorbed, expanded or chunked."""

import torch
from torch import Tensor

from moe_impl.attention import AttentionLayer, GqaLayer, MlaLayer
from moe_impl.attention_shapes import AttentionShape, GqaShape, MlaShape


def attended(x_TH: Tensor, weights: AttentionLayer, shape: AttentionShape, sequence_T: list[int]) -> Tensor:
    """fp64 [T, H]: every token reads the whole of its sequence, of which ``sequence_T`` is the index in the cache."""
    x = x_TH.double()
    if isinstance(weights, MlaLayer):
        assert isinstance(shape, MlaShape)
        return torch.stack([_mla(token, weights, shape, z) for token, z in zip(x, sequence_T, strict=True)])
    assert isinstance(shape, GqaShape)
    return torch.stack([_gqa(token, weights, shape, z) for token, z in zip(x, sequence_T, strict=True)])


def _read(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return ((keys @ query) / len(query) ** 0.5).softmax(0) @ values


def _gqa(x_H: Tensor, weights: GqaLayer, shape: GqaShape, z: int) -> Tensor:
    queries = weights.qkv.double()[: shape.heads * shape.head_dim] @ x_H
    read = []
    for head in range(shape.heads):
        query = queries[head * shape.head_dim : (head + 1) * shape.head_dim]
        kv_head = head // (shape.heads // shape.kv_heads)
        read.append(_read(query, weights.keys_ZGCQ[z, kv_head].double(), weights.values_ZGCQ[z, kv_head].double()))
    return weights.output.double() @ torch.cat(read)


def _mla(x_H: Tensor, weights: MlaLayer, shape: MlaShape, z: int) -> Tensor:
    query_up, down, latent_CV = weights.query_up.double(), weights.down.double(), weights.latent_ZCV[z].double()
    queries = query_up @ (down[: shape.q_lora_rank] @ x_H)
    read = []
    for head in range(shape.heads):
        query = queries[head * shape.qk_head_dim : (head + 1) * shape.qk_head_dim]
        expand = weights.expand[head].double()
        latent, rotary = latent_CV[:, : shape.kv_lora_rank], latent_CV[:, shape.kv_lora_rank :]
        keys = torch.cat((latent @ expand[: shape.nope_head_dim].T, rotary), 1)
        read.append(_read(query, keys, latent @ expand[shape.nope_head_dim :].T))
    return weights.output.double() @ torch.cat(read)
