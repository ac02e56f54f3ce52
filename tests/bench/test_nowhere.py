"""Combinations of a sweep file that no machine can run: refused by `plan` as by `sweep`, on any machine."""

# ruff: noqa: E501  (a table of messages, one a line)

from pathlib import Path

import pytest

from bench import cli, config
from bench.errors import BenchError

FILE = """\
schema: 1
case:
  {{model: {model}, ep_size: {ep_size}, tokens: {tokens}, precision: {precision}, dispatch_dtype: {dtype}, link: {link}}}
variants:
  - {variant}
{more}"""
GOOD = {
    "model": "deepseek-v3", "ep_size": 8, "tokens": "[16, 64]", "precision": "bf16", "dispatch_dtype": "bf16",
    "link": "local", "variant": "{engine: streams, split_factor: 2}", "more": "",
}  # fmt: skip
NODES = "{paced: hopper-cx7-ep16}"
RATIO = "{policy: ratio, ratio: 0.4}"


def text(**wrong: object) -> str:
    values = {**GOOD, **wrong}
    return FILE.format(**values, dtype=values["dispatch_dtype"])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"dispatch_dtype": "nvfp4"}, "precision bf16 dispatches bf16, not nvfp4"),
        ({"link": NODES}, "link counts (token, node) rows: ep_size must be 16 or 32, got 8"),
        ({"link": "collective", "ep_size": 1}, "link collective needs at least 2 ranks, got ep_size 1"),
        ({"variant": f"{{split: {RATIO}, split_factor: 4}}"}, "split ratio cuts a batch in 2, not in 4"),
        ({"variant": "{worst_case_layout: per_expert}"}, "worst_case_layout per_expert needs experts triton, got torch"),
        ({"variant": "{max_tokens_per_rank: 8}"}, "max_tokens_per_rank 8 has no room for 16 tokens"),
        (
            {"variant": "{experts: triton}", "precision": "fp8", "dispatch_dtype": "fp8"},
            "experts triton reads NVFP4 weights; fp8 runs on experts torch",
        ),
        ({"variant": f"{{split: {RATIO}, split_factor: 4}}", "more": "  - {max_tokens_per_rank: 8}"},
         "split ratio cuts a batch in 2, not in 4; max_tokens_per_rank 8 has no room for 16 tokens"),
    ],
)  # fmt: skip
def test_a_file_of_which_nothing_runs_anywhere_is_refused_with_the_reason(
    wrong: dict[str, object], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text(**wrong))
    assert cli.main(["plan", str(path)]) == 2
    assert capsys.readouterr().err == f"error: {path}:2:1: case: no machine can run any of it: {reason}\n"


def test_so_is_an_entry_beside_one_that_runs() -> None:
    with pytest.raises(BenchError) as refused:
        config.parse(text(more=f"  - {{split: {RATIO}, split_factor: [3, 4]}}"), "x.yaml")
    (problem,) = refused.value.problems
    assert problem == "x.yaml:6:5: variants[1]: no machine can run any of it: split ratio cuts a batch in 2, not in 3"


@pytest.mark.parametrize(
    "wrong",
    [
        {"link": f"[local, {NODES}]"},
        {"dispatch_dtype": "[nvfp4, bf16]"},
        {"variant": f"{{split: {RATIO}, split_factor: [4, 2]}}"},
        {"variant": "{max_tokens_per_rank: 16}"},
    ],
)
def test_points_that_run_nowhere_are_left_to_be_skipped_beside_others(wrong: dict[str, object]) -> None:
    config.parse(text(**wrong), "x.yaml")


@pytest.mark.parametrize(
    "wrong",
    [{"link": "host_link"}, {"link": "collective"}, {"variant": "{reserve_sms: 20}"},
     {"model": "{hidden_size: 9216, intermediate_size: 64, num_experts: 8, top_k: 1}", "link": "{paced: h800-nvlink-ep8}"}],
)  # fmt: skip
def test_what_some_machine_can_run_is_for_the_machine_to_refuse(wrong: dict[str, object]) -> None:
    config.parse(text(**wrong), "x.yaml")


def test_a_file_without_variants_is_judged_by_the_default_ones() -> None:
    bare = text(link=NODES).split("variants:")[0]
    with pytest.raises(BenchError, match="no machine can run any of it"):
        config.parse(bare, "x.yaml")
    config.parse(text().split("variants:")[0], "x.yaml")
