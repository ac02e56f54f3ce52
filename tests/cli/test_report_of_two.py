"""`bench report A B` names a `bench compare` that works for these two runs, or says why none does."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic

from bench.cases import Case
from moe_impl.links import COLLECTIVE, LOCAL
from moe_impl.options import Link, Precision

CONFIG = """\
schema: 1
case: {model: deepseek-v3, ep_size: 8, layers: 2, tokens: [256, 4096], precision: bf16, link: {paced: h800-nvlink-ep8}}
variants: [{engine: streams, split_factor: 2}]
"""
H200 = replace(synthetic.H100, name="NVIDIA H200")
TWO_RANKS = replace(synthetic.H100, ranks=2)

Run = Callable[..., tuple[int, str, str]]


def cases(precision: Precision = "bf16", link: Link = LOCAL, tokens: tuple[int, ...] = (256, 4096)) -> list[Case]:
    return [replace(case, link=link) for case in synthetic.cases(tokens, (precision,))]


@pytest.mark.parametrize(
    ("one", "other", "options"),
    [
        ((cases(), synthetic.H100), (cases(), synthetic.H100), []),
        ((cases(), synthetic.H100), (cases(), H200), ["--anyway"]),
        ((cases(link=COLLECTIVE), TWO_RANKS), (cases(), synthetic.H100), ["--across", "link", "--anyway"]),
        ((cases("nvfp4"), synthetic.H100), (cases(), synthetic.H100), ["--across", "precision"]),
    ],
)
def test_the_comparison_it_names_works(
    command: Run, tmp_path: Path, one: tuple, other: tuple, options: list[str]
) -> None:
    runs = [
        synthetic.write_run(tmp_path / name, synthetic.Builder(passes=2, pairs=2, machine=machine).trials(some), CONFIG)
        for name, (some, machine) in (("one", one), ("other", other))
    ]
    assert command("report", *runs, "--out", tmp_path / "both")[0] == 0
    text = (tmp_path / "both" / "report.md").read_text()
    (named,) = [shlex.split(line) for line in text.splitlines() if line.startswith("bench compare ")]
    assert named[4:] == options
    code, out, err = command(*named[1:])
    assert (code, err) == (0, "")
    assert "of 2 comparisons" in out
    assert ", bench compare joins 2 of " in text


@pytest.mark.parametrize(
    "other", [cases("nvfp4", synthetic.cases((256,))[0].link), cases(tokens=(512,))], ids=["two axes", "tokens"]
)
def test_where_none_works_it_says_why(command: Run, tmp_path: Path, other: list[Case]) -> None:
    runs = [
        synthetic.write_run(tmp_path / name, synthetic.Builder(passes=2, pairs=2).trials(some), CONFIG)
        for name, some in (("one", cases()), ("other", other))
    ]
    assert command("report", *runs, "--out", tmp_path / "both")[0] == 0
    text = (tmp_path / "both" / "report.md").read_text()
    assert "No row of one run stands beside a row of the other in bench compare: none is the same case" in text
    assert "\nbench compare " not in text
