"""The bill of stage ``attention``, worked out by hand on small shapes."""

from dataclasses import replace

import pytest

from moe_impl import costs
from moe_impl.attention_shapes import GqaShape, MlaShape, Phase
from moe_impl.options import Attention, Variant, Workload
from moe_impl.overlap.schedule import chain
from moe_impl.shapes import ModelShape
from moe_impl.stages import Stage

# H 64; 4 query heads of 16 on 2 KV heads: 64 * (64 + 64) + 64 * 64 projection weights, 64 cached values
GQA = GqaShape(4, 2, 16)
# 2 heads, ranks 32 and 16, a query of 8 + 4, a value of 8
MLA = MlaShape(2, 32, 16, 8, 4, 8)
GQA_WEIGHTS = 64 * (64 + 2 * 32) + 64 * 64
MLA_PROJECTIONS = 64 * 32 + 32 * 2 * 12 + 64 * 20 + 2 * 8 * 64
MLA_EXPANSION = 16 * 2 * (8 + 8)
T, C = 6, 10
BARE = Workload(ModelShape(64, 32, 8, 2), ep_size=4, layers=3, tokens=T, precision="bf16")


def with_attention(shape: GqaShape | MlaShape, phase: Phase) -> Workload:
    return replace(BARE, attention=Attention(C, phase, shape))


def total(workload: Workload, field: str, ubatches: int = 1) -> float:
    bill = costs.layer_costs(workload, ubatches)
    return sum(getattr(cost, field) for cost in bill if cost.stage == Stage.ATTENTION)


@pytest.mark.parametrize(
    ("shape", "phase", "a_token", "a_micro_batch"),
    [
        (GQA, "prefill", 2 * GQA_WEIGHTS + 2 * C * 4 * (16 + 16), 0),
        (GQA, "decode", 2 * GQA_WEIGHTS + 2 * C * 4 * (16 + 16), 0),
        (MLA, "prefill", 2 * MLA_PROJECTIONS + 2 * C * 2 * (12 + 8), 2 * C * MLA_EXPANSION),
        (MLA, "decode", 2 * (MLA_PROJECTIONS + MLA_EXPANSION) + 2 * C * 2 * (20 + 16), 0),
    ],
)
def test_flops(shape: GqaShape | MlaShape, phase: Phase, a_token: int, a_micro_batch: int) -> None:
    workload = with_attention(shape, phase)
    assert total(workload, "flops") == T * a_token + a_micro_batch
    assert total(workload, "flops", 3) == T * a_token + 3 * a_micro_batch
    assert costs.attention_flops(workload) == (a_token, a_micro_batch)


@pytest.mark.parametrize(
    ("shape", "phase", "whole", "a_split_more"),
    [
        (GQA, "prefill", GQA_WEIGHTS + C * 64 + T * (2 * 128 + 5 * 64), GQA_WEIGHTS + C * 64),
        (GQA, "decode", GQA_WEIGHTS + T * C * 64 + T * (2 * 128 + 5 * 64), GQA_WEIGHTS),
        (
            MLA,
            "prefill",
            MLA_PROJECTIONS + MLA_EXPANSION + C * 20 + 2 * C * 2 * (12 + 8) + T * (2 * 40 + 5 * 64),
            MLA_PROJECTIONS + MLA_EXPANSION + C * 20 + 2 * C * 2 * (12 + 8),
        ),
        (
            MLA,
            "decode",
            MLA_PROJECTIONS + MLA_EXPANSION + T * C * 20 + T * (2 * 72 + 5 * 64),
            MLA_PROJECTIONS + MLA_EXPANSION,
        ),
    ],
)
def test_values_read_and_written(shape: GqaShape | MlaShape, phase: Phase, whole: int, a_split_more: int) -> None:
    """bf16; a second micro-batch reads the weights again, and in prefill the one cache that both follow."""
    workload = with_attention(shape, phase)
    assert total(workload, "hbm_bytes") == 2 * whole
    assert total(workload, "hbm_bytes", 2) == 2 * (whole + a_split_more)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_decode_keeps_a_cache_for_every_token(phase: Phase) -> None:
    sequences = T if phase == "decode" else 1
    workload = with_attention(MLA, phase)
    assert costs.attention_layer_bytes(workload) == (2 * (MLA_PROJECTIONS + MLA_EXPANSION), 2 * C * 20)
    assert costs.attention_bytes(workload) == 3 * 2 * (MLA_PROJECTIONS + MLA_EXPANSION + sequences * C * 20)


def test_a_layer_without_attention_owes_nothing() -> None:
    unknown = replace(BARE, attention=Attention(C))
    for workload in (BARE, unknown):
        assert costs.attention_bytes(workload) == total(workload, "flops") == 0
    assert costs.buffer_bytes(BARE, Variant("torch")) == costs.buffer_bytes(unknown, Variant("torch"))


def test_every_stage_has_a_term() -> None:
    for shape in (GQA, MLA):
        workload = with_attention(shape, "prefill")
        assert {cost.stage for cost in costs.layer_costs(workload, 1)} == set(chain(workload))


def test_buffers_hold_attentions_own_where_it_needs_most() -> None:
    long = replace(with_attention(MLA, "prefill"), attention=Attention(10**5, "prefill", MLA))
    expanded = 2 * 10**5 * 2 * (8 + 8 + 2 * 12)
    needed = costs.buffer_bytes(long, Variant("torch").unsplit())
    assert expanded < needed < expanded + 2**20
