"""``bench report A B``: two runs' speed-ups on the same axes, named, and neither run touched."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic

from bench import beside, report
from bench.cases import Case
from bench.errors import BenchError, Exit
from bench.render import beside as render
from bench.report_model import ReportModel
from moe_impl.links import LOCAL
from moe_impl.options import Machine

H200 = replace(synthetic.H100, name="NVIDIA H200")


def model(path: str, cases: list[Case], machine: Machine = synthetic.H100) -> ReportModel:
    trials = synthetic.Builder(passes=2, pairs=2, machine=machine).trials(cases)
    return report.build(synthetic.StubRun(trials, path=Path(path)))


@pytest.fixture(scope="module")
def pair() -> list[ReportModel]:
    """NVFP4 on one GPU, bf16 on another, over token counts that differ by one."""
    return [
        model("runs/fp4", synthetic.cases((256, 1024, 4096), ("nvfp4-w4a16",))),
        model("runs/half", synthetic.cases((1024, 4096, 8192)), H200),
    ]


def test_both_runs_share_a_plot_and_its_legend_names_them(pair: list[ReportModel]) -> None:
    found = beside.build(pair)
    (picture,) = render.pictures_of(found)
    drawn = re.findall(r">([^<>]+)</text>", picture.svg)
    assert {"fp4: streams x2 triton, nvfp4-w4a16", "half: streams x2 torch, bf16"} <= set(drawn)
    assert {"256", "1024", "4096", "8192"} <= set(drawn)
    heading = " ".join(drawn)
    assert "fp4: NVIDIA H100 80GB HBM3" in heading
    assert "half: NVIDIA H200" in heading
    assert "modelled comm" in heading


def test_no_two_lines_look_alike() -> None:
    """Two GPUs, the same series on both, with more precisions and links than there are colours."""
    cases = synthetic.cases((256, 1024), ("bf16", "fp8", "nvfp4-w4a16"))
    cases += [replace(case, link=LOCAL) for case in cases]
    found = beside.build([model("runs/a", cases), model("runs/b", cases, H200)])
    (picture,) = render.pictures_of(found)
    legend = picture.svg[picture.svg.index('<g id="legend_1">') :]
    entry = r'<path d="[^"]*" style="fill: none;(?P<line>[^"]*)".*?<use xlink:href="(?P<marker>[^"]*)"'
    looks = re.findall(entry, legend, re.DOTALL)
    assert len(looks) == len(found.panels[0].curves) == 12
    assert len(set(looks)) == 12, "colour and dash, and marker"


def test_a_token_count_that_one_run_lacks_is_a_gap(pair: list[ReportModel]) -> None:
    (panel,) = beside.build(pair).panels
    table = render.table(panel)
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == ["256", "1024", "4096", "8192"]
    assert (rows["256"][1], rows["8192"][0]) == ("-", "-")
    comparison = pair[1].sections[0].rows[1].comparison
    assert rows["4096"][1] == f"{comparison.speedup:.3f}x [{comparison.low:.3f}, {comparison.high:.3f}] FASTER"
    assert [note.split(":")[0] for note in table.notes] == ["fp4", "half"]


def test_both_headlines_stand_in_both_documents(pair: list[ReportModel], tmp_path: Path) -> None:
    paths = render.write(beside.build(pair), tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == ["report.html", "report.md", "plots/beside-1.svg"]
    for path in paths[:2]:
        text = path.read_text()
        assert "TBO (streams x2 triton, nvfp4-w4a16)" in text
        assert "TBO (streams x2 torch, bf16)" in text
        assert "bench report runs/fp4 runs/half --out DIR" in text
        assert "bench compare runs/fp4 runs/half" in text
    assert "<script" not in paths[0].read_text()


def test_links_that_differ_are_named(pair: list[ReportModel]) -> None:
    local = [replace(case, link=LOCAL) for case in synthetic.cases((1024, 4096))]
    (panel,) = beside.build([pair[0], model("runs/local", local)]).panels
    assert render.table(panel).headers[1:] == (
        "fp4: streams x2 triton, nvfp4-w4a16, paced h800-nvlink-ep8",
        "local: streams x2 torch, bf16, local",
    )


def test_folders_of_one_name_are_called_by_their_paths(pair: list[ReportModel]) -> None:
    twin = replace(pair[1], run="other/fp4")
    assert [side.name for side in beside.build([pair[0], twin]).sides] == ["runs/fp4", "other/fp4"]


def test_one_run_twice_and_layers_of_other_shapes_are_refused(pair: list[ReportModel]) -> None:
    with pytest.raises(BenchError, match="found one run twice"):
        beside.build([pair[0], pair[0]])
    deeper = model("runs/deep", synthetic.cases((1024,), layers=3))
    with pytest.raises(BenchError, match="their layers differ in layers") as caught:
        beside.build([pair[0], deeper])
    assert caught.value.code is Exit.NOT_COMPARABLE
    alone = model("runs/alone", [replace(case, variants=case.variants[:1]) for case in synthetic.cases((1024,))])
    with pytest.raises(BenchError, match="one timed no overlapped variant"):
        beside.build([pair[0], alone])
