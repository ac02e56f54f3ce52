"""Stage ``attention`` against the definition in fp64, whole, split, in turns and empty. Uninitialised memory is NaN."""

from dataclasses import replace

import pytest
import torch
from attention_reference import attended
from torch import Tensor

from moe_impl import attention, attention_shapes
from moe_impl.attention import AttentionLayer, AttentionStandIn, draw_attention
from moe_impl.attention_shapes import AttentionShape, GqaShape, MlaShape, Phase
from moe_impl.options import Attention, Workload
from moe_impl.shapes import ModelShape
from moe_impl.weights import draw_layer

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")

CPU = torch.device("cpu")
MLA = MlaShape(heads=6, q_lora_rank=48, kv_lora_rank=32, nope_head_dim=16, rope_head_dim=8, v_head_dim=16)
GQA = GqaShape(heads=6, kv_heads=2, head_dim=16)
TOKENS, CONTEXT, H = 11, 40, 96
EVERY_KIND = pytest.mark.parametrize(("shape", "phase"), [(s, p) for s in (MLA, GQA) for p in ("prefill", "decode")])


def work(shape: AttentionShape, phase: Phase, tokens: int = TOKENS, context: int = CONTEXT) -> Workload:
    model = ModelShape(H, 64, 8, 2)
    return Workload(model, 4, layers=2, tokens=tokens, precision="bf16", attention=Attention(context, phase, shape))


def drawn(workload: Workload) -> tuple[AttentionStandIn, list[AttentionLayer]]:
    assert workload.attention is not None
    layers = [draw_attention(workload, layer, CPU) for layer in range(workload.layers)]
    return AttentionStandIn(workload.attention, layers), layers


def activations(tokens: int = TOKENS) -> Tensor:
    return torch.randn(tokens, H, generator=torch.Generator().manual_seed(5)).bfloat16()


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@EVERY_KIND
def test_every_layer_makes_what_attention_means(shape: AttentionShape, phase: Phase) -> None:
    stand_in, layers = drawn(work(shape, phase))
    sequences = list(range(TOKENS)) if phase == "decode" else [0] * TOKENS
    for layer, weights in enumerate(layers):
        found = stand_in.run(activations(), slice(0, TOKENS), layer)
        assert (found.shape, found.dtype) == ((TOKENS, H), torch.bfloat16)
        assert apart(found, attended(activations(), weights, shape, sequences)) < 1.5e-2
    assert apart(stand_in.run(activations(), slice(0, TOKENS), 0), found) > 0.5, "each layer has its own"


@EVERY_KIND
@pytest.mark.parametrize("cut", [0, 1, 4, TOKENS])
def test_parts_make_what_the_whole_makes_in_any_order(shape: AttentionShape, phase: Phase, cut: int) -> None:
    stand_in, _ = drawn(work(shape, phase))
    whole = stand_in.run(activations(), slice(0, TOKENS), 1)
    later = stand_in.run(activations()[cut:], slice(cut, TOKENS), 1)
    sooner = stand_in.run(activations()[:cut], slice(0, cut), 1)
    assert apart(torch.cat((sooner, later)), whole) < 5e-3


@pytest.mark.parametrize("shape", [MLA, GQA], ids=lambda shape: shape.kind)
def test_decode_reads_the_caches_of_its_own_tokens_and_prefill_the_only_one(shape: AttentionShape) -> None:
    x = activations()[:4]
    for phase, differ in (("prefill", False), ("decode", True)):
        stand_in, _ = drawn(work(shape, phase))  # type: ignore[arg-type]
        one, other = stand_in.run(x, slice(0, 4), 0), stand_in.run(x, slice(4, 8), 0)
        assert (apart(one, other) > 0.5) == differ


@EVERY_KIND
def test_nothing_is_written_that_another_micro_batch_reads(shape: AttentionShape, phase: Phase) -> None:
    stand_in, layers = drawn(work(shape, phase))
    before = [{name: tensor.clone() for name, tensor in vars(layer).items()} for layer in layers]
    x = activations()
    first = stand_in.run(x, slice(0, TOKENS), 0)
    assert torch.equal(stand_in.run(x, slice(0, TOKENS), 0), first)
    assert torch.equal(x, activations())
    for layer, kept in zip(layers, before, strict=True):
        assert all(torch.equal(getattr(layer, name), tensor) for name, tensor in kept.items())


@pytest.mark.parametrize(
    ("phase", "heads_or_tokens", "room"),
    # of 6 heads 2 at a time: 2 * 40 * (16 + 16 + 2 * 24) bytes each; of 11 tokens 4: 2 * 2 * 40 * 6 bytes each
    [("prefill", [2, 2, 2], 2 * 6400 + 100), ("decode", [4, 4, 3], 4 * 960 + 100), ("prefill", [1] * 6, 1)],
)
def test_what_there_is_no_room_for_is_done_in_turns(
    phase: Phase, heads_or_tokens: list[int], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in, _ = drawn(work(MLA, phase))
    at_once = stand_in.run(activations(), slice(0, TOKENS), 0)
    seen: list[int] = []
    fused, softmax = attention.scaled_dot_product_attention, Tensor.softmax

    def counting_heads(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        seen.append(keys.shape[1])
        return fused(query, keys, values)

    def counting_tokens(scores: Tensor, dim: int) -> Tensor:
        seen.append(len(scores))
        return softmax(scores, dim)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", counting_heads)
    monkeypatch.setattr(Tensor, "softmax", counting_tokens)
    monkeypatch.setattr(attention_shapes, "ROOM_BYTES", room)
    in_turns = stand_in.run(activations(), slice(0, TOKENS), 0)
    assert seen == heads_or_tokens
    assert apart(in_turns, at_once) < 5e-3
    assert MLA.room_bytes(CONTEXT, TOKENS, phase) <= max(room, 6400)


@EVERY_KIND
def test_weights_and_kv_are_as_large_as_the_bill_says_and_outputs_near_unit_size(
    shape: AttentionShape, phase: Phase
) -> None:
    from moe_impl import costs

    workload = work(shape, phase)
    stand_in, layers = drawn(workload)
    held = sum(tensor.numel() * tensor.element_size() for layer in layers for tensor in vars(layer).values())
    assert held == costs.attention_bytes(workload)
    assert 0.02 < float(stand_in.run(activations(), slice(0, TOKENS), 0).float().square().mean().sqrt()) < 2


def test_attention_changes_no_expert_weight_and_follows_the_seed() -> None:
    workload = work(GQA, "prefill")
    plain = draw_layer(replace(workload, attention=None), 0, CPU)
    assert torch.equal(plain.w13, draw_layer(workload, 0, CPU).w13)  # type: ignore[arg-type]
    once, again, other = (draw_attention(one, 0, CPU).output for one in (workload, workload, replace(workload, seed=1)))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_an_attention_of_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="model inline has no attention shape"):
        draw_attention(replace(work(GQA, "prefill"), attention=Attention(8)), 0, CPU)
