"""``case.attention``: read with positions, written out, resolved by model, in ids and records as little as possible."""

# ruff: noqa: E501  (a table of messages, one a line)

import json
from dataclasses import replace

import pytest
from synthetic import Builder
from synthetic import cases as synthetic_cases

from bench import config
from bench.cases import expand
from bench.errors import BenchError
from bench.filters import select
from bench.identity import canonical, case_id
from bench.results import from_record, to_record
from moe_impl.attention_shapes import ATTENTION_SHAPES
from moe_impl.links import LOCAL
from moe_impl.options import Attention, Workload
from moe_impl.shapes import PRESETS

FILE = """\
schema: 1
case:
  model: {model}
  ep_size: 8
  attention: {attention}
  tokens: 16
  precision: bf16
  link: local
variants:
  - {{engine: streams}}
"""
INLINE = "{hidden_size: 64, intermediate_size: 64, num_experts: 8, top_k: 1}"
NAMES = ", ".join(ATTENTION_SHAPES)


def parsed(attention: str, model: str = "deepseek-v3") -> config.SweepConfig:
    return config.parse(FILE.format(attention=attention, model=model), "x.yaml")


def test_a_context_and_a_phase_are_read() -> None:
    assert parsed("{context: 4096}").case.attention == (Attention(4096, "prefill"),)
    assert parsed("[{context: 4096, phase: decode}, {context: 1}]").case.attention == (
        Attention(4096, "decode"),
        Attention(1),
    )


@pytest.mark.parametrize(
    ("attention", "model", "message"),
    [
        ("4096", "deepseek-v3", "5:3: case.attention: found 4096, expected a mapping with context, phase"),
        ("{phase: decode}", "deepseek-v3", "5:3: case.attention.context: missing, it is required"),
        ("{context: 0}", "deepseek-v3", "5:15: case.attention.context: found 0, expected a whole number >= 1"),
        ("{context: 8, phase: decod}", "deepseek-v3", "5:27: case.attention.phase: found decod, did you mean decode? allowed: prefill, decode"),
        ("{context: 8, phas: decode}", "deepseek-v3", "5:27: case.attention: unknown key phas, did you mean phase? allowed: context, phase"),
        ("{context: 8}", INLINE, f"5:3: case.attention: needs a model whose attention is known, found h64-i64-e8-k1, allowed: {NAMES}"),
        ("[{context: 8}, {context: 8, phase: prefill}]", "deepseek-v3", "5:29: case.attention: found the same value twice: a mapping is already on the list"),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_mistake_gets_one_line(attention: str, model: str, message: str) -> None:
    with pytest.raises(BenchError) as refused:
        parsed(attention, model)
    assert refused.value.problems[0] == f"x.yaml:{message}"


@pytest.mark.parametrize("attention", ["{context: 4096}", "[{context: 4096}, {context: 77, phase: decode}]"])
def test_it_is_written_out_and_read_back(attention: str) -> None:
    sweep = parsed(attention)
    text = config.dump_resolved(sweep)
    assert "    - {context: 4096, phase: prefill}\n" in text
    assert config.parse(text, "again.yaml") == sweep


def test_every_model_gets_its_own_shape_and_one_without_stays_without() -> None:
    cases = expand(parsed("[{context: 64}, {context: 64, phase: decode}]", f"[deepseek-v3, qwen3-30b-a3b, {INLINE}]"))
    found = [(str(case.workload.attention), case.workload.attention.shape) for case in cases]  # type: ignore[union-attr]
    shapes = [ATTENTION_SHAPES["deepseek-v3"], ATTENTION_SHAPES["qwen3-30b-a3b"], None]
    assert found == [(phase, shape) for shape in shapes for phase in ("prefill-64", "decode-64")]
    assert [case.workload.attention for case in select(cases, "attention=decode-64,model=deepseek-v3")] == [
        Attention(64, "decode", shapes[0])
    ]


def test_a_case_without_attention_keeps_its_id_and_one_with_gets_its_own() -> None:
    bare = Workload(PRESETS["deepseek-v3"], ep_size=8, layers=2, tokens=1024, precision="bf16")
    assert "attention" not in canonical(bare)
    some = [Attention(4096), Attention(4096, "decode"), Attention(8192)]
    ids = {case_id(replace(bare, attention=attention), LOCAL) for attention in some}
    assert len({case_id(bare, LOCAL), *ids}) == 4
    assert canonical(replace(bare, attention=some[0]))["attention"] == {
        "context": 4096,
        "shape": {
            "heads": 128,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "nope_head_dim": 128,
            "rope_head_dim": 64,
            "v_head_dim": 128,
        },
    }


@pytest.mark.parametrize("name", ["deepseek-v3", "gpt-oss-20b"])
def test_a_record_keeps_the_shape_and_one_from_before_attention_is_read(name: str) -> None:
    trial = Builder(passes=1, pairs=2).trials(synthetic_cases([256]))[0]
    old = json.loads(json.dumps(to_record(trial)))
    del old["case"]["workload"]["attention"]
    assert from_record(old) == trial
    attention = Attention(4096, "decode", ATTENTION_SHAPES[name])
    bare = tuple(replace(m, stages=None) for m in trial.measurements)
    trial = replace(trial, workload=replace(trial.workload, attention=attention), measurements=bare)
    again = from_record(json.loads(json.dumps(to_record(trial))))
    assert again == trial
    assert repr(again.workload.attention) == repr(attention)
