"""The sweep file: a table of mistakes with their messages, and the way there and back."""

# ruff: noqa: E501  (a table of messages, one a line)

from pathlib import Path

import pytest

from bench import config
from bench.config import VariantSpec
from bench.errors import BenchError, Exit
from bench.settings import MeasureSettings, SampleLimits
from moe_impl.links import COLLECTIVE, HOST_LINK, LOCAL, PACED_PRESETS
from moe_impl.options import LinkTime, SplitPolicy
from moe_impl.shapes import PRESETS

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))

GOOD = """\
# Question: does TBO pay
#   here?
#
# Costs nothing.
schema: 1
case:
  model: deepseek-v3
  ep_size: 8
  layers: 2
  tokens: [16, 64]
  precision: bf16
  routing: model
  link: local
  seed: 0
variants:
  - {engine: streams, split_factor: 2}
measure: {passes: 2, round_min: 0.5 s}
"""
SIZES = "hidden_size, intermediate_size, num_experts, top_k"
CASE_KEYS = "model, ep_size, layers, tokens, precision, dispatch_dtype, routing, attention, link, seed"
VARIANT_KEYS = (
    "experts, engine, split_factor, split, receive, launch, order, comm_priority, reserve_sms, max_tokens_per_rank, "
    "worst_case_layout"
)
MEASURE_KEYS = (
    "passes, rounds, samples, stop_when, round_min, warm_up, cold_l2, cross_check, repeat_doubtful, aa, decide_beyond, "
    "same_within, refine, refine_cases, refine_limit, link_sensitivity, case_limit"
)
TIME = "expected a time such as 15 us (units: ns, us, ms, s, min)"
LINKS = "local, host_link, collective, {paced: PRESET}, {paced: {alpha, bandwidth, comm_sms}}, {table: FILE.csv}"
PRESETS_OF_LINKS = f"; PRESET is one of {', '.join(PACED_PRESETS)}"

# (a line of GOOD, what a user wrote instead, the one message)
MISTAKES = [
    ("schema: 1", "schema: 2", "5:1: schema: found 2, this program reads 1"),
    ("schema: 1", "schema: true", "5:1: schema: found true, this program reads 1"),
    ("schema: 1\n", "", "5:1: schema: missing, it is required"),
    ("schema: 1", "schema: 1\nshema: 1", "6:1: unknown key shema, did you mean schema? allowed: schema, case, variants, measure"),
    ("schema: 1", "schema: 1\n12: 1", "6:1: a key must be text, found 12"),
    ("schema: 1", "schema: 1\n? [a]\n: 1", "6:3: a key must be text, found a list"),
    ("schema: 1", "schema: !!int '1'", "5:1: tags are not allowed, found !!int"),
    ("model: deepseek-v3", "model: deepseek-v2", "7:3: case.model: unknown model preset deepseek-v2, did you mean deepseek-v3? allowed: " + ", ".join(PRESETS) + ", or {" + SIZES + "}"),
    ("model: deepseek-v3", "model: 3", "7:3: case.model: found 3, expected a model preset or {" + SIZES + "}"),
    ("model: deepseek-v3", "model: {hidden_size: 100, intermediate_size: 128, num_experts: 8, top_k: 2}", "7:11: case.model.hidden_size: must be a positive multiple of 16 (one NVFP4 block), got 100"),
    ("model: deepseek-v3", "model: {hidden_size: 64, intermediate_size: 128, num_experts: 8, top_k: 9}", "7:68: case.model.top_k: must lie in 1..num_experts (8), got 9"),
    ("model: deepseek-v3", "model: {hidden_size: 64, intermediate_size: 128, num_experts: 8}", "7:3: case.model.top_k: missing, it is required"),
    ("model: deepseek-v3", "model: {hiden_size: 64, hidden_size: 64, intermediate_size: 64, num_experts: 8, top_k: 1}", "7:11: case.model: unknown key hiden_size, did you mean hidden_size? allowed: " + SIZES + ", shared_experts"),
    ("  ep_size: 8\n", "", "6:1: case.ep_size: missing, it is required"),
    ("ep_size: 8", "ep_size: -8", "8:3: case.ep_size: found -8, expected a whole number >= 1"),
    ("ep_size: 8", "ep_size: true", "8:3: case.ep_size: found true, expected a whole number >= 1"),
    ("ep_size: 8", "ep_size: 8.0", "8:3: case.ep_size: found 8.0, expected a whole number >= 1"),
    ("ep_size: 8", "ep_size: '8'", "8:3: case.ep_size: found '8', expected a whole number >= 1"),
    ("ep_size: 8", "ep_size:", "8:3: case.ep_size: found nothing, expected a whole number >= 1"),
    ("ep_size: 8", "ep_size: 3000000000", "8:3: case.ep_size: found 3000000000, expected a whole number <= 2147483647"),
    ("ep_size: 8", "ep_size: 7", "8:3: case.ep_size: found 7, expected a divisor of 256 experts"),
    ("ep_size: 8", "ep_size: [8, 3]", "8:16: case.ep_size: found 3, expected a divisor of 256 experts"),
    ("{engine: streams, split_factor: 2}", "{experts: triton}", "16:6: variants[0].experts: found triton, which reads NVFP4 weights, and case.precision is bf16 alone, allowed: torch, auto"),
    ("{engine: streams, split_factor: 2}", "{experts: [torch, triton]}", "16:23: variants[0].experts: found triton, which reads NVFP4 weights, and case.precision is bf16 alone, allowed: torch, auto"),
    ("{engine: streams, split_factor: 2}", "{experts: [auto, humming]}", "16:22: variants[0].experts: found humming, which reads NVFP4 weights, and case.precision is bf16 alone, allowed: torch, auto"),
    ("{engine: streams, split_factor: 2}", "{split_factor: 65}", "16:6: variants[0].split_factor: found 65, expected a whole number <= 64"),
    ("passes: 2", "decide_beyond: 2 %", "17:11: measure.decide_beyond: decide_beyond 2.00% is above same_within 1.00%, expected at most that"),
    ("passes: 2", "same_within: 0.1 %", "17:11: measure.same_within: decide_beyond 0.20% is above same_within 0.10%, expected at most that"),
    ("layers: 2", "lyaers: 2", "9:3: case: unknown key lyaers, did you mean layers? allowed: " + CASE_KEYS),
    ("layers: 2", "layers: 2\n  layers: 3", "10:3: duplicate key layers, first given on line 9"),
    ("layers: 2", "weights: {file: w.safetensors}", "9:3: case: unknown key weights, allowed: " + CASE_KEYS),
    ("layers: 2", "<<: {layers: 2}", "9:3: case: unknown key <<, allowed: " + CASE_KEYS),
    ("[16, 64]", "0", "10:3: case.tokens: found 0, expected a whole number >= 1"),
    ("[16, 64]", "[16, 0]", "10:16: case.tokens: found 0, expected a whole number >= 1"),
    ("[16, 64]", "[16, 64, 16]", "10:20: case.tokens: found the same value twice: 16 is already on the list"),
    ("[16, 64]", "[]", "10:3: case.tokens: found an empty list, expected at least one value"),
    ("[16, 64]", "[[16], 64]", "10:12: case.tokens: found a list, expected a whole number >= 1"),
    ("[16, 64]", "&a [*a]", "10:11: an anchor that contains itself"),
    ("bf16", "int4", "11:3: case.precision: found int4, allowed: bf16, fp8, nvfp4-w4a16, nvfp4"),
    ("bf16", "bf61", "11:3: case.precision: found bf61, did you mean bf16? allowed: bf16, fp8, nvfp4-w4a16, nvfp4"),
    ("bf16", "!precision bf16", "11:3: tags are not allowed, found !precision"),
    ("routing: model", "routing: skewed", "12:3: case.routing: found skewed, allowed: model, uniform, {zipf: S}, {hotspot: SHARE}"),
    ("link: local", "link: nvlink", "13:3: case.link: found nvlink, allowed: " + LINKS + PRESETS_OF_LINKS),
    ("link: local", "link: h800-nvlink-ep8", "13:3: case.link: found h800-nvlink-ep8, did you mean {paced: h800-nvlink-ep8}? allowed: " + LINKS + PRESETS_OF_LINKS),
    ("link: local", "link: colective", "13:3: case.link: found colective, did you mean collective? allowed: " + LINKS + PRESETS_OF_LINKS),
    ("link: local", "link: {paced: h800-nvlink-ep9}", "13:10: case.link.paced: unknown link preset h800-nvlink-ep9, did you mean h800-nvlink-ep8? allowed: " + ", ".join(PACED_PRESETS) + ", or {alpha, bandwidth, comm_sms}"),
    ("link: local", "link: {paced: {alpha: .nan, bandwidth: 1 GB/s, comm_sms: 1}}", "13:18: case.link.paced.alpha: found .nan, expected a time with its unit, such as 15 us (units: ns, us, ms, s, min)"),
    ("link: local", "link: {paced: {alpha: 15, bandwidth: 1 GB/s, comm_sms: 1}}", "13:18: case.link.paced.alpha: found 15, no unit, " + TIME),
    ("link: local", "link: {paced: {alpha: 1 us, bandwidth: 150 Gb/s, comm_sms: 1}}", "13:31: case.link.paced.bandwidth: found 150 Gb/s, unknown unit Gb/s, expected a rate such as 150 GB/s (units: B/s, kB/s, MB/s, GB/s, TB/s)"),
    ("link: local", "link: {paced: {alpha: 1 us, bandwidth: 0 GB/s, comm_sms: 1}}", "13:31: case.link.paced.bandwidth: found 0 GB/s, expected a rate above 0"),
    ("link: local", "link: {paced: {alpha: 1 us, bandwidth: {dispatch: 1 GB/s}, comm_sms: 1}}", "13:31: case.link.paced.bandwidth.combine: missing, it is required"),
    ("link: local", "link: {paced: {alpha: 1 us, bandwidth: {dispatch: {bf61: 1 GB/s}, combine: 1 GB/s}, comm_sms: 1}}", "13:54: case.link.paced.bandwidth.dispatch: unknown key bf61, did you mean bf16? allowed: bf16, fp8, nvfp4"),
    ("link: local", "link: {paced: {alpha: 1 us, bandwidth: {dispatch: {}, combine: 1 GB/s}, comm_sms: 1}}", "13:43: case.link.paced.bandwidth.dispatch: found an empty mapping, expected one of bf16, fp8, nvfp4"),
    ("link: local", "link: {paced: {alpha: {dispatch: {bf16: 1 us}, combine: 1 us}, bandwidth: {dispatch: {fp8: 1 GB/s}, combine: 1 GB/s}, comm_sms: 1}}", "13:10: case.link.paced: found dispatch alpha of bf16 and bandwidth of fp8, expected the same dtypes"),
    ("link: local", "link: {paced: {alpha: 1 us, bandwidth: 1 GB/s, comm_sms: 1, copies: token}}", "13:63: case.link.paced.copies: found token, allowed: rank, node"),
    ("link: local", "link: {}", "13:3: case.link: found an empty mapping, allowed: " + LINKS),
    ("link: local", "link: {paced: h800-nvlink-ep8, table: t.csv}", "13:3: case.link: found paced and table, allowed: " + LINKS),
    ("link: local", "link: {table: [t.csv]}", "13:10: case.link.table: found a list, expected the name of a CSV file (direction,dtype,bytes,seconds)"),
    ("link: local", "link: {table: {file: t.csv, comm_sms: 0}}", "13:31: case.link.table.comm_sms: found 0, expected a whole number >= 1"),
    ("link: local", "link: {table: no_such_file.csv}", "13:10: case.link.table: no_such_file.csv: no such file"),
    ("link: local", "link: {paced: {alpha: [1 us], bandwidth: 1 GB/s, comm_sms: 1}}", "13:18: case.link.paced.alpha: found a list, expected a time such as 15 us"),
    ("seed: 0", "seed: -1", "14:3: case.seed: found -1, expected a whole number >= 0"),
    ("{engine: streams, split_factor: 2}", "{engine: graph}", "16:6: variants[0].engine: found graph, allowed: serial, threads, streams"),
    ("{engine: streams, split_factor: 2}", "{engine: steams}", "16:6: variants[0].engine: found steams, did you mean streams? allowed: serial, threads, streams"),
    ("{engine: streams, split_factor: 2}", "{split_factor: 0}", "16:6: variants[0].split_factor: found 0, expected a whole number >= 1"),
    ("{engine: streams, split_factor: 2}", "{split_factor: off}", "16:6: variants[0].split_factor: found off, expected a whole number >= 1"),
    ("{engine: streams, split_factor: 2}", "{split_factor: [2, 2]}", "16:24: variants[0].split_factor: found the same value twice: 2 is already on the list"),
    ("{engine: streams, split_factor: 2}", "{launch: grap}", "16:6: variants[0].launch: found grap, did you mean graph? allowed: eager, graph"),
    ("{engine: streams, split_factor: 2}", "{splt: equal}", "16:6: variants[0]: unknown key splt, did you mean split? allowed: " + VARIANT_KEYS),
    ("{engine: streams, split_factor: 2}", "{split: 2}", "16:6: variants[0].split: found 2, allowed: equal, balanced, ratio"),
    ("{engine: streams, split_factor: 2}", "{split: balancd}", "16:6: variants[0].split: found balancd, did you mean balanced? allowed: equal, balanced, ratio"),
    ("{engine: streams, split_factor: 2}", "{split: {min_tokens: 5}}", "16:6: variants[0].split.policy: missing, it is required"),
    ("{engine: streams, split_factor: 2}", "{split: {policy: equal, min_tokens: -1}}", "16:29: variants[0].split.min_tokens: found -1, expected a whole number >= 0"),
    ("{engine: streams, split_factor: 2}", "{split: {policy: ratio, ratio: 1}}", "16:29: variants[0].split.ratio: must lie between 0 and 1, got 1"),
    ("{engine: streams, split_factor: 2}", "{split: {policy: ratio, ratio: .nan}}", "16:29: variants[0].split.ratio: must lie between 0 and 1, got nan"),
    ("{engine: streams, split_factor: 2}", "{split: {policy: ratio, ratio: true}}", "16:29: variants[0].split.ratio: found true, expected a number between 0 and 1"),
    ("{engine: streams, split_factor: 2}", "{split: {policy: ratio, ratio: 48 %}}", "16:29: variants[0].split.ratio: found 48 %, expected a number between 0 and 1"),
    ("{engine: streams, split_factor: 2}", "{split: {policy: balanced, ratio: 0.4}}", "16:32: variants[0].split.ratio: goes with policy ratio, not with balanced"),
    ("{engine: streams, split_factor: 2}", "{split: [equal, {policy: equal}]}", "16:21: variants[0].split: found the same value twice: a mapping is already on the list"),
    ("{engine: streams, split_factor: 2}", "streams", "16:5: variants[0]: found streams, expected a mapping with " + VARIANT_KEYS),
    ("\n  - {engine: streams, split_factor: 2}", " []", "15:1: variants: found an empty list, expected at least one variant"),
    ("\n  - {engine: streams, split_factor: 2}", " {engine: streams}", "15:1: variants: found a mapping, expected a list of `- {engine: ..., split_factor: ...}`"),
    ("passes: 2", "passes: 0", "17:11: measure.passes: found 0, expected a whole number >= 1"),
    ("passes: 2", "sample: {min: 20}", "17:11: measure: unknown key sample, did you mean samples? allowed: " + MEASURE_KEYS),
    ("passes: 2", "samples: {min: 20}", "17:11: measure.samples: found without stop_when, which chooses between its limits, expected both or neither"),
    ("passes: 2", "samples: 20", "17:11: measure.samples: found 20, expected a mapping with min, max"),
    ("passes: 2", "samples: {min: 20, mx: 30}", "17:30: measure.samples: unknown key mx, did you mean max? allowed: min, max"),
    ("passes: 2", "samples: {min: 1}", "17:21: measure.samples.min: found 1, expected a whole number >= 2"),
    ("passes: 2", "samples: {min: 500}", "17:11: measure.samples: found min 500 above max 400, expected at most that"),
    ("passes: 2", "stop_when: 0.5 %", "17:11: measure.stop_when: found 0.5 %, expected `ratio within 0.2 %`"),
    ("passes: 2", "stop_when: ratio within 0.5", "17:11: measure.stop_when: found ratio within 0.5, no unit, expected a fraction such as 0.2 % (units: %, ratio)"),
    ("passes: 2", "stop_when: ratio within 0 %", "17:11: measure.stop_when: found ratio within 0 %, expected a fraction above 0"),
    ("passes: 2", "stop_when: [ratio within 1 %]", "17:11: measure.stop_when: found a list, expected `ratio within 0.2 %`"),
    ("passes: 2", "rounds: 6, stop_when: ratio within 0.5 %", "17:22: measure.stop_when: found ratio within 0.5 % beside rounds 6, expected one of the two"),
    ("passes: 2", "aa: yes", "17:11: measure.aa: found yes, expected true or false"),
    ("0.5 s", "-0.5 s", "17:22: measure.round_min: found -0.5 s, expected a time that is finite and not negative"),
    ("0.5 s", "0.5", "17:22: measure.round_min: found 0.5, no unit, " + TIME),
    ("passes: 2", "decide_beyond: 100 %", "17:11: measure.decide_beyond: found 100 %, expected a fraction below 1"),
    ("passes: 2", "case_limit: 0 s", "17:11: measure.case_limit: found 0 s, expected a time above 0"),
    ("measure: {passes: 2, round_min: 0.5 s}", "measure: 5", "17:1: measure: found 5, expected a mapping with " + MEASURE_KEYS),
    (GOOD, "- 1\n", "1:1: found a list, expected a mapping with schema, case, variants, measure"),
    (GOOD, "schema: [1\n", "2:1: no valid YAML: expected ',' or ']', but got '<stream end>'"),
    (GOOD, "schema: *one\n", "1:9: no valid YAML: found undefined alias 'one'"),
    (GOOD, GOOD + "---\n" + GOOD, "18:1: no valid YAML: but found another document"),
]  # fmt: skip

NO_PLACE = [
    ("", "is empty, expected a sweep file (schema, case, variants)"),
    ("# Question: why?\n", "is empty, expected a sweep file (schema, case, variants)"),
    ("\x01", "no valid YAML: unacceptable character #x0001: special characters are not allowed"),
    ("[" * 5000, "nested too deeply"),
]


def problems_of(text):
    with pytest.raises(BenchError) as refused:
        config.parse(text, "x.yaml")
    assert refused.value.code == Exit.BAD_INPUT
    return list(refused.value.problems)


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES, ids=[message[:60] for _, _, message in MISTAKES])
def test_a_mistake_gets_one_line_that_says_where_what_and_what_is_allowed(right, wrong, message):
    assert GOOD.count(right) == 1
    assert problems_of(GOOD.replace(right, wrong)) == [f"x.yaml:{message}"]


@pytest.mark.parametrize(("text", "message"), NO_PLACE, ids=["empty", "comment", "control", "deep"])
def test_what_is_no_yaml_at_all_is_one_line(text, message):
    assert problems_of(text) == [f"x.yaml: {message}"]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    wrong = (
        GOOD.replace("ep_size: 8", "ep_size: 0")
        .replace("bf16", "int4")
        .replace("2}", "0}")
        .replace("passes: 2", "passes: no")
    )
    assert [problem.split(": ")[1] for problem in problems_of(wrong)] == [
        "case.ep_size",
        "case.precision",
        "variants[0].split_factor",
        "measure.passes",
    ]


def test_an_alias_used_a_million_times_is_refused_without_being_unrolled():
    bomb = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert "x.yaml:1:1: unknown key a0, allowed: schema, case, variants, measure" in problems_of(bomb)


def test_an_alias_that_is_no_trick_is_read():
    assert config.parse(
        GOOD.replace("layers: 2", "layers: &two 2").replace("seed: 0", "seed: *two"), "x"
    ).case.seed == (2,)


def test_a_missing_file_names_the_one_beside_it(tmp_path):
    (tmp_path / "smoke.yaml").write_text(GOOD)
    with pytest.raises(BenchError, match=r"smok\.yaml: no such file, did you mean .*smoke\.yaml\?$"):
        config.load(tmp_path / "smok.yaml")


def test_a_directory_a_binary_and_a_huge_file_are_refused(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"schema: \xff")
    (tmp_path / "huge.yaml").write_text("#" * 1_000_001)
    for path, message in [
        (tmp_path, "is a directory, expected a sweep file (YAML)"),
        (tmp_path / "binary.yaml", "is not UTF-8 text (byte 8)"),
        (tmp_path / "huge.yaml", "larger than 1,000,000 bytes, which no sweep file is"),
    ]:
        with pytest.raises(BenchError) as refused:
            config.load(path)
        assert str(refused.value) == f"{path}: {message}"


def test_a_sweep_file_is_read_into_resolved_axes():
    sweep = config.parse(GOOD, "x.yaml")
    assert sweep.question == "does TBO pay here?"
    assert sweep.case.model == (PRESETS["deepseek-v3"],)
    assert sweep.case.tokens == (16, 64)
    assert sweep.case.link == (LOCAL,)
    for link in (HOST_LINK, COLLECTIVE):
        assert config.parse(GOOD.replace("link: local", f"link: {link.name}"), "x.yaml").case.link == (link,)
    assert sweep.variants == (VariantSpec((("engine", ("streams",)), ("split_factor", (2,)))),)
    assert sweep.measure == MeasureSettings(passes=2)


def test_an_inline_link_takes_one_quantity_for_both_directions_or_one_for_each():
    text = GOOD.replace(
        "local", "{paced: {alpha: 15 us, bandwidth: {dispatch: 150 GB/s, combine: 0.1 TB/s}, comm_sms: 20}}"
    )
    [link] = config.parse(text, "x.yaml").case.link
    assert link.times == (LinkTime("dispatch", 15e-6, 150e9), LinkTime("combine", 15e-6, 100e9))
    assert (link.transport, link.comm_sms, link.name) == ("paced", 20, "150GB/s+100GB/s-15us-20sm")


def test_an_inline_link_takes_one_quantity_for_each_payload_dtype():
    text = GOOD.replace(
        "local",
        "{paced: {alpha: {dispatch: 15 us, combine: {bf16: 16 us}}, "
        "bandwidth: {dispatch: {fp8: 80 GB/s, bf16: 150 GB/s}, combine: 0.1 TB/s}, comm_sms: 20, copies: node}}",
    ).replace("ep_size: 8", "ep_size: 16")
    [link] = config.parse(text, "x.yaml").case.link
    assert link.times == (
        LinkTime("dispatch", 15e-6, 150e9, "bf16"),
        LinkTime("dispatch", 15e-6, 80e9, "fp8"),
        LinkTime("combine", 16e-6, 100e9, "bf16"),
    )
    assert link.copies == "node"
    assert "," not in link.name


def test_a_value_that_goes_with_one_of_a_list_is_no_mistake():
    models = "[deepseek-v3, {hidden_size: 64, intermediate_size: 64, num_experts: 9, top_k: 1}]"
    text = GOOD.replace("deepseek-v3", models).replace("ep_size: 8", "ep_size: [8, 3]")
    text = text.replace("bf16", "[bf16, nvfp4-w4a16]").replace("engine: streams", "experts: [torch, triton]")
    assert config.parse(text, "x.yaml").case.ep_size == (8, 3)


def test_a_split_is_a_policys_name_or_a_mapping_and_a_list_is_an_axis():
    [spec] = config.parse(SPLITS, "x.yaml").variants
    assert dict(spec.values)["split"] == (
        SplitPolicy("balanced"),
        SplitPolicy("ratio", 0.1234567890123456789),
        SplitPolicy("equal", min_tokens=5),
    )


def test_a_stopping_rule_takes_the_place_of_a_number_of_rounds():
    measure = config.parse(STOPPING, "x.yaml").measure
    assert (measure.samples, measure.aa) == (SampleLimits(8, 400), True)
    assert measure.stop_when == 0.00123456789012345678
    written = config.dump_resolved(config.parse(STOPPING, "x.yaml"))
    assert "  samples: {min: 8, max: 400}\n" in written
    assert "rounds:" not in written
    assert "stop_when" not in config.dump_resolved(config.parse(GOOD, "x.yaml"))


def test_what_was_stored_before_there_was_a_rule_means_the_same():
    old = "{passes: 5, rounds: 3, round_min: 0.5 s, warm_up: 0.2 s, decide_beyond: 0.002 ratio, same_within: 0.01 ratio, case_limit: 120.0 s}"
    measure = config.parse(GOOD.replace("{passes: 2, round_min: 0.5 s}", old), "x.yaml").measure
    assert measure == MeasureSettings(rounds=3)
    assert (measure.stop_when, measure.aa) == (None, False)


def test_variants_may_be_left_out():
    assert config.parse(NO_VARIANTS, "x.yaml").variants == ()


def test_every_case_key_may_be_a_list():
    text = GOOD
    for one, many in [
        (
            "model: deepseek-v3",
            "model: [deepseek-v3, {hidden_size: 64, intermediate_size: 64, num_experts: 8, top_k: 1}]",
        ),
        ("ep_size: 8", "ep_size: [4, 8]"),
        ("layers: 2", "layers: [1, 2]"),
        ("bf16", "[bf16, nvfp4-w4a16]"),
        ("routing: model", "routing: [model, uniform]\n  dispatch_dtype: [bf16, fp8]"),
        ("link: local", "attention: [{context: 8}, {context: 9}]\n  link: local"),
        ("local", "[local, {paced: h800-nvlink-ep8}]"),
        ("seed: 0", "seed: [0, 1]"),
    ]:
        text = text.replace(one, many)
    axes = config.parse(text, "x.yaml").case
    assert {len(getattr(axes, name)) for name in CASE_KEYS.split(", ")} == {2}


ODD = GOOD.replace(
    "deepseek-v3", "[deepseek-v3, {hidden_size: 64, intermediate_size: 64, num_experts: 8, top_k: 1}]"
).replace(
    "link: local",
    "link: [local, host_link, collective, {paced: hopper-nvlink-ep8}, {paced: {alpha: 0.1 us, bandwidth: 0.333333333333333333 GB/s, comm_sms: 3}},"
    " {paced: hopper-cx7-ep16}, {paced: {alpha: {dispatch: 1 us, combine: {fp8: 2 us, bf16: 0 s}}, bandwidth: 3 GB/s,"
    " comm_sms: 3, copies: node}}]",
)


SPLITS = GOOD.replace(
    "split_factor: 2",
    "split: [balanced, {policy: ratio, ratio: 0.1234567890123456789}, {policy: equal, min_tokens: 5}]",
)
STOPPING = GOOD.replace(
    "passes: 2", "passes: 2, samples: {min: 8}, stop_when: ratio within 0.123456789012345678 %, aa: true"
)
NO_VARIANTS = GOOD.replace("variants:\n  - {engine: streams, split_factor: 2}\n", "")


TEXTS = dict.fromkeys((GOOD, ODD, SPLITS, STOPPING, NO_VARIANTS), "x.yaml")


@pytest.mark.parametrize(("text", "source"), [*TEXTS.items(), *((path.read_text(), str(path)) for path in CONFIGS)])
def test_a_resolved_config_reads_back_to_an_equal_one(text, source):
    sweep = config.parse(text, source)
    again = config.parse(config.dump_resolved(sweep), "config.resolved.yaml")
    assert again == sweep
    # names, sources and GPUs are for people and take no part in equality; a table's are a comment in what is dumped
    assert repr(again) == repr(sweep) or any(link.note for link in sweep.case.link)


def test_a_resolved_config_writes_presets_and_defaults_out():
    text = config.dump_resolved(config.parse(GOOD.replace("local", "{paced: h800-nvlink-ep8}"), "x.yaml"))
    preset = PACED_PRESETS["h800-nvlink-ep8"]
    assert f"dispatch: {preset.time('dispatch').bandwidth_bytes_per_s!r} B/s" in text
    assert "hidden_size: 7168" in text
    assert "  same_within: 0.01 ratio\n" in text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_in_the_repository_loads_and_says_its_question(path):
    assert config.load(path).question.endswith("?")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deepseek-v3", ", did you mean deepseek-v3-ep8-prefill or deepseek-v3-splits?"),
        ("smokee", ", did you mean smoke?"),
        ("nope", f"; there are {', '.join(path.stem for path in CONFIGS)}"),
    ],
)
def test_a_bare_name_that_is_none_gets_the_nearest(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError) as refused:
        config.load(name)
    assert str(refused.value) == f"{name}: no such file, and none of ours by that name{said}"


def test_a_bare_name_means_one_of_our_files_unless_there_is_one_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = CONFIGS[0].parent / "smoke.yaml"
    assert config.load("smoke") == config.load(ours)
    assert config.which("smoke") == f"sweep file: {ours}"
    assert config.which(ours) is None
    with pytest.raises(BenchError, match=r"^smoke\.yaml: no such file"):
        config.load("smoke.yaml")
    (tmp_path / "smoke").write_text("schema: 2\n")
    with pytest.raises(BenchError, match="smoke:1:1: schema: found 2"):
        config.load("smoke")
    with pytest.raises(BenchError, match="no_such"):
        config.load("no_such")
