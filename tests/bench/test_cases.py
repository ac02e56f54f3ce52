"""Expansion of a sweep file: which cases, in which order, with which variants."""

import time

import pytest

from bench import cases, config
from bench.errors import BenchError

BASE = """\
schema: 1
case:
  model: deepseek-v3
  ep_size: {ep_size}
  tokens: {tokens}
  precision: {precision}
  link: {link}
variants: {variants}
"""


def sweep(ep_size="8", tokens="[16, 64]", precision="bf16", link="local", variants="[{split_factor: 2}]"):
    text = BASE.format(ep_size=ep_size, tokens=tokens, precision=precision, link=link, variants=variants)
    return config.parse(text, "sweep.yaml")


def labels(variants):
    return [variant.label for variant in variants]


def test_cases_come_with_precision_outermost_and_tokens_innermost():
    found = cases.expand(sweep(precision="[nvfp4-w4a16, bf16]", link="[local, {paced: h800-nvlink-ep8}]"))
    order = [(case.workload.precision, case.link.name, case.workload.tokens) for case in found]
    assert order == [
        (precision, link, tokens)
        for precision in ("nvfp4-w4a16", "bf16")
        for link in ("local", "h800-nvlink-ep8")
        for tokens in (16, 64)
    ]


def test_the_count_is_that_of_the_expansion():
    config = sweep(ep_size="[4, 8]", precision="[nvfp4-w4a16, bf16]")
    assert cases.count(config) == len(cases.expand(config)) == 8


def test_every_overlapped_variant_comes_after_its_own_t1_and_t2s():
    [case, _] = cases.expand(sweep(variants="[{split_factor: [2, 4], order: [yield_before, yield_after]}]"))
    assert labels(case.variants) == [
        "off torch",
        "serial x2 torch",
        "streams x2 torch yield_before",
        "streams x2 torch",
        "serial x4 torch",
        "streams x4 torch yield_before",
        "streams x4 torch",
    ]


@pytest.mark.parametrize("named", ["{split_factor: 1}", "{split_factor: 1, engine: serial, order: yield_before}"])
def test_naming_t1_adds_no_second_run(named):
    [case, _] = cases.expand(sweep(variants=f"[{named}, {{split_factor: 2}}]"))
    assert labels(case.variants) == ["off torch", "serial x2 torch", "streams x2 torch"]


def test_splits_share_their_t1_and_keep_their_own_t2s():
    [case, _] = cases.expand(sweep(variants="[{split: [equal, balanced]}, {split_factor: 1, split: balanced}]"))
    assert labels(case.variants) == [
        "off torch",
        "serial x2 torch",
        "streams x2 torch",
        "serial x2 balanced torch",
        "streams x2 balanced torch",
    ]


def test_a_serial_variant_alone_still_gets_its_t1():
    [case, _] = cases.expand(sweep(variants="[{engine: serial, split_factor: 4, order: yield_before}]"))
    assert labels(case.variants) == ["off torch", "serial x4 torch"]


def test_entries_add_up_and_what_they_share_runs_once():
    [case, _] = cases.expand(sweep(variants="[{split_factor: [2, 4]}, {split_factor: 2, experts: torch}]"))
    assert len(case.variants) == len(set(case.variants)) == 5


def test_unnamed_experts_follow_the_precision():
    nvfp4, bf16 = cases.expand(sweep(tokens="64", precision="[nvfp4-w4a16, bf16]"))
    assert {variant.experts for variant in nvfp4.variants} == {"triton"}
    assert {variant.experts for variant in bf16.variants} == {"torch"}


def test_ids_differ_between_cases_and_ignore_how_a_link_was_spelled():
    spelled_out = "{paced: {alpha: 15 us, bandwidth: {dispatch: 153 GB/s, combine: 158 GB/s}, comm_sms: 20}}"
    preset = cases.expand(sweep(link="{paced: h800-nvlink-ep8}"))
    inline = cases.expand(sweep(link=spelled_out))
    assert [case.case_id for case in preset] == [case.case_id for case in inline]
    assert len({case.case_id for case in preset}) == 2


def test_a_sweep_of_a_hundred_million_pairs_is_refused_before_it_is_made():
    many = str(list(range(1, 10_001)))
    began = time.perf_counter()
    config = sweep(tokens=many, ep_size=f"8\n  seed: {many}")
    with pytest.raises(BenchError) as refused:
        cases.expand(config)
    assert time.perf_counter() - began < 10
    assert str(refused.value) == (
        "the sweep has 100,000,000 (case, variant) pairs, at most 100,000 are allowed:"
        " shorten a list (seed 10,000 x tokens 10,000 cases, times the listed variants)"
    )
