"""Attention shapes of the presets against published totals, and what a workload makes of them."""

from dataclasses import replace

import pytest

from moe_impl.attention_shapes import ATTENTION_SHAPES, GqaShape, MlaShape
from moe_impl.options import Attention, Workload
from moe_impl.shapes import PRESETS, ModelShape

DEEPSEEK = Workload(PRESETS["deepseek-v3"], 8, 1, 64, "bf16")


def test_every_model_preset_has_an_attention_shape() -> None:
    assert ATTENTION_SHAPES.keys() == PRESETS.keys()


@pytest.mark.parametrize(
    ("name", "cached_values", "weights"),
    [
        # DeepSeek-V3's report: 512 + 64 cached values; the sum over its config's matrices is 187.1 M a layer
        ("deepseek-v3", 576, 187_105_280),
        ("kimi-k2", 576, 101_122_048),
        # hidden * 128 * 2 * (heads + KV heads)
        ("ernie-4.5-300b-a47b", 2048, 150_994_944),
        ("ernie-4.5-21b-a3b", 1024, 15_728_640),
        ("qwen3-30b-a3b", 1024, 18_874_368),
        ("qwen3-235b-a22b", 1024, 71_303_168),
        ("mixtral-8x7b", 2048, 41_943_040),  # 2 * 4096 * 4096 + 2 * 4096 * 1024
        ("gpt-oss-120b", 1024, 26_542_080),
    ],
)
def test_a_presets_attention_has_the_published_size(name: str, cached_values: int, weights: int) -> None:
    shape = ATTENTION_SHAPES[name]
    assert shape.cached_values == cached_values
    assert shape.projection_weights(PRESETS[name].hidden_size) + shape.expansion_weights == weights


def test_absorbed_heads_are_as_wide_as_the_latent() -> None:
    shape = ATTENTION_SHAPES["deepseek-v3"]
    assert shape.products("prefill") == 128 * (192 + 128)
    assert shape.products("decode") == 128 * (576 + 512)
    assert ATTENTION_SHAPES["mixtral-8x7b"].products("decode") == 32 * 256


def test_a_workload_takes_its_models_shape() -> None:
    taken = replace(DEEPSEEK, attention=Attention(4096)).attention
    assert taken == Attention(4096, "prefill", ATTENTION_SHAPES["deepseek-v3"])
    assert replace(DEEPSEEK, model=ModelShape(64, 64, 8, 2), attention=Attention(9)).attention == Attention(9)
    own = GqaShape(4, 2, 16)
    assert replace(DEEPSEEK, attention=Attention(9, shape=own)).attention.shape is own  # type: ignore[union-attr]


def test_it_is_spelled_without_space_or_comma() -> None:
    assert str(Attention(4096)) == "prefill-4096"
    assert str(Attention(128, "decode", GqaShape(4, 2, 16))) == "decode-128"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GqaShape(6, 4, 16), "kv_heads must divide heads"),
        (lambda: MlaShape(4, 16, 16, 8, 8, 24), "v_head_dim must be at most 16"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


def test_room_is_for_at_least_one_head_or_token_and_for_no_more_than_there_are() -> None:
    shape = ATTENTION_SHAPES["deepseek-v3"]
    assert isinstance(shape, MlaShape)
    assert shape.heads_at_once(64) == 128
    assert shape.heads_at_once(4096) == 2**28 // (2 * 4096 * 640)
    assert shape.heads_at_once(10**7) == shape.tokens_at_once(10**7) == 1
    assert shape.room_bytes(4096, 100_000, "prefill") <= 2**28
    assert shape.room_bytes(4096, 100_000, "decode") <= 2**28
    assert shape.room_bytes(4096, 2, "decode") == 2 * 4 * 4096 * 128
