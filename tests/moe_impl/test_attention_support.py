"""Which attention is refused, what it adds to the memory a case needs, and what its numbers say of themselves."""

from dataclasses import replace

import pytest
from synthetic import CPU, H100

from moe_impl import costs
from moe_impl.links import LOCAL
from moe_impl.options import Attention, Variant, Workload
from moe_impl.shapes import PRESETS, ModelShape
from moe_impl.support import labels, unsupported_reason

DEEPSEEK = Workload(PRESETS["deepseek-v3"], ep_size=8, layers=2, tokens=1024, precision="bf16")
INLINE = replace(DEEPSEEK, model=ModelShape(64, 64, 8, 2, name="mine"))
TORCH = Variant("torch")


def test_a_model_without_an_attention_shape_is_refused() -> None:
    refused = unsupported_reason(replace(INLINE, attention=Attention(64)), LOCAL, TORCH, CPU)
    assert refused == "attention needs a model preset, which has an attention shape; mine has none"
    assert unsupported_reason(INLINE, LOCAL, TORCH, CPU) is None


def test_caches_of_decode_need_memory_for_every_token() -> None:
    def attending(phase: str) -> Workload:
        return replace(DEEPSEEK, attention=Attention(32768, phase))  # type: ignore[arg-type]

    assert unsupported_reason(attending("prefill"), LOCAL, TORCH, H100) is None
    refused = unsupported_reason(attending("decode"), LOCAL, TORCH, H100)
    caches = 2 * 1024 * 32768 * 576 * 2
    assert costs.attention_bytes(attending("decode")) - caches == 2 * 2 * 187_105_280
    assert refused is not None
    assert caches / 2**30 < float(refused.split()[2]) < caches / 2**30 + 20


@pytest.mark.parametrize(
    ("model", "attention", "said"),
    [
        (
            "deepseek-v3",
            Attention(4096),
            (
                "attention stand-in: MLA prefill over 4096 cached tokens; a layer: "
                "0.676 GFLOP a token + 137 GFLOP a micro-batch, 374 MB of weights, 4.72 MB of KV a micro-batch",
            ),
        ),
        (
            "qwen3-30b-a3b",
            Attention(1000, "decode"),
            (
                "attention stand-in: GQA decode over 1000 cached tokens; a layer: "
                "0.0541 GFLOP a token, 37.7 MB of weights, 2.05 MB of KV a token",
            ),
        ),
    ],
)
def test_its_flops_and_bytes_are_said_in_numbers_that_hold_for_any_batch(
    model: str, attention: Attention, said: tuple[str, ...]
) -> None:
    for tokens in (16, 4096):
        workload = replace(DEEPSEEK, model=PRESETS[model], tokens=tokens, attention=attention)
        assert labels(workload, LOCAL, TORCH, H100) == said


def test_gpt_oss_says_that_its_windows_are_left_out() -> None:
    workload = replace(DEEPSEEK, model=PRESETS["gpt-oss-20b"], attention=Attention(4096))
    assert labels(workload, LOCAL, TORCH, H100)[-1].startswith("every layer reads the whole context; in gpt-oss")
