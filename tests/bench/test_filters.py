"""--filter: what it keeps, and what it says of a filter that keeps nothing."""

import pytest

from bench import cases, config, filters
from bench.errors import BenchError

SWEEP = """\
schema: 1
case:
  model: [deepseek-v3, {hidden_size: 256, intermediate_size: 128, num_experts: 8, top_k: 2}]
  ep_size: 8
  tokens: [16, 64]
  precision: [nvfp4-w4a16, bf16]
  link: [local, {paced: h800-nvlink-ep8}, {paced: {alpha: 5 us, bandwidth: 20 GB/s, comm_sms: 4}}]
variants:
  - {split_factor: [2, 4], order: [yield_before, yield_after]}
"""


@pytest.fixture(scope="module")
def everything():
    return cases.expand(config.parse(SWEEP, "sweep.yaml"))


def test_no_filter_keeps_everything(everything):
    assert filters.select(everything, None) == everything


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("tokens=16", 12),
        ("tokens=16,tokens=64", 24),
        ("precision=bf16", 12),
        ("link=h800-nvlink-ep8", 8),
        ("link=20GB/s-5us-4sm", 8),
        ("model=h256-i128-e8-k2, tokens=64", 6),
        ("routing=model,layers=1,ep_size=8,seed=0", 24),
        ("experts=torch", 12),
    ],
)
def test_case_fields_select_cases(everything, text, kept):
    assert len(filters.select(everything, text)) == kept


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("split_factor=4,order=yield_after", ["off torch", "serial x4 torch", "streams x4 torch"]),
        ("split_factor=2,order=yield_before", ["off torch", "serial x2 torch", "streams x2 torch yield_before"]),
        ("split_factor=1", ["off torch"]),
        ("engine=serial", ["off torch", "serial x2 torch", "serial x4 torch"]),
        ("order=yield_before,split_factor=4", ["off torch", "serial x4 torch", "streams x4 torch yield_before"]),
    ],
)  # fmt: skip
def test_a_filtered_variant_keeps_its_own_t1_and_t2s(everything, text, labels):
    [case, *_] = filters.select(everything, f"precision=bf16,{text}")
    assert [variant.label for variant in case.variants] == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (
            "reserve_sms=20",
            ["off torch", "serial x2 torch reserve-20", "streams x2 torch reserve-20",
             "streams x2 torch default-priority reserve-20"],
        ),
        (
            "comm_priority=default",
            ["off torch", "serial x2 torch", "streams x2 torch default-priority", "serial x2 torch reserve-20",
             "streams x2 torch default-priority reserve-20"],
        ),
        ("comm_priority=high,reserve_sms=0", ["off torch", "serial x2 torch", "streams x2 torch"]),
    ],
)  # fmt: skip
def test_what_decides_on_a_busy_gpu_selects_variants(text, labels):
    head, variants = SWEEP.split("variants:")
    assert variants
    sweep = head + "variants:\n  - {comm_priority: [high, default], reserve_sms: [0, 20]}\n"
    [case, *_] = filters.select(cases.expand(config.parse(sweep, "sweep.yaml")), f"precision=bf16,{text}")
    assert [variant.label for variant in case.variants] == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "token=16",
            "--filter: unknown key token, did you mean tokens? allowed: model, ep_size, layers, tokens, precision,"
            f" {', '.join([*list(filters.CASE_KEYS)[5:], *filters.VARIANT_KEYS])}",
        ),
        ("tokens=17", "--filter: tokens=17 matches nothing, this sweep has: 16, 64"),
        ("link=locl", "--filter: link=locl matches nothing, did you mean local? this sweep has: local, h800-nvlink-ep8,"
                      " 20GB/s-5us-4sm"),
        ("split_factor=3", "--filter: split_factor=3 matches nothing, this sweep has: 1, 2, 4"),
        ("tokens", "--filter: found 'tokens', expected KEY=VALUE[,KEY=VALUE...], such as tokens=1024,engine=streams"),
        ("tokens=16,64", "--filter: found '64' without its key; `or` is spelled tokens=16,tokens=64"),
        ("seed=0,tokens=16,tokens=64, 8", "--filter: found ' 8' without its key; `or` is spelled tokens=64,tokens=8"),
        ("", "--filter: found '', expected KEY=VALUE[,KEY=VALUE...], such as tokens=1024,engine=streams"),
        ("precision=bf16,experts=triton", "--filter: no case matches all of precision=bf16,experts=triton"),
    ],
)  # fmt: skip
def test_a_filter_that_keeps_nothing_says_what_there_is(everything, text, message):
    with pytest.raises(BenchError) as refused:
        filters.select(everything, text)
    assert str(refused.value) == message


def test_all_values_that_match_nothing_are_named_at_once(everything):
    with pytest.raises(BenchError) as refused:
        filters.select(everything, "tokens=1,engine=threads")
    assert len(refused.value.problems) == 2
