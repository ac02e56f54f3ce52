"""``bench report A B``: two runs' speed-ups on the same axes, named, and neither run touched."""

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic

from bench import beside, report
from bench.cases import Case
from bench.errors import BenchError, Exit
from bench.render import beside as render
from bench.render import plots
from bench.render.picture import Picture
from bench.report_model import ReportModel
from bench.results import Measurement
from moe_impl.links import LOCAL
from moe_impl.options import Machine, Workload

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


def drawn(picture: Picture) -> list[str]:
    """The texts in it."""
    return re.findall(r">([^<>]+)</text>", picture.svg)


def axes_width(picture: Picture) -> float:
    """Of the whole picture's."""
    edges = re.search(r'<g id="patch_2">\s*<path d="M (\S+) \S+\s+L (\S+) ', picture.svg)
    page = re.search(r'viewBox="0 0 (\S+) ', picture.svg)
    assert edges
    assert page
    return abs(float(edges[2]) - float(edges[1])) / float(page[1])


def flagged(m: Measurement, pass_index: int, work: Workload) -> Measurement:
    """T2o in two passes, one of them twice."""
    flags = ("slowed down by SwPowerCap: 8 % of the time", "slowed down by SwPowerCap: 9 %")[: 2 - pass_index]
    return replace(m, flags=flags) if (m.role, work.tokens) == ("T2o", 4096) else m


def test_both_runs_share_a_plot_that_calls_them_a_and_b(pair: list[ReportModel]) -> None:
    (picture,) = render.pictures_of(beside.build(pair))
    texts = drawn(picture)
    assert {"A: streams x2 triton, nvfp4-w4a16", "B: streams x2 torch, bf16"} <= set(texts)
    assert {"256", "1024", "4096", "8192"} <= set(texts)
    assert any(text.startswith("A is fp4: NVIDIA H100 80GB HBM3") for text in texts)
    assert any(text.startswith("B is half: NVIDIA H200") for text in texts)
    assert "modelled comm" in " ".join(texts)


def test_a_legend_wraps_and_leaves_the_axes_their_width(pair: list[ReportModel]) -> None:
    (panel,) = beside.build(pair).panels
    _, section = panel.curves[0]
    widths = []
    for length in (10, 52, 53, 104, 200):
        word = f"{'long-er ' * length}"[: length - 1] + "!"
        curves = [plots.Curve(section, f"{word[:-2]}{place}!", str(place), str(place)) for place in range(8)]
        picture = plots.speedups("wide", "title", curves, ["told"])
        widths.append(axes_width(picture))
        told = " ".join(drawn(picture))
        assert all(f"{place}!" in told for place in range(8))
    assert min(widths) > 0.85


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
    (table,) = render.shared(panel)
    assert render.unshared(panel) == []
    assert table.title == "streams x2 triton, nvfp4-w4a16 in A, streams x2 torch, bf16 in B"
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == ["256", "1024", "4096", "8192"]
    assert (rows["256"][2:], rows["8192"][:2]) == (("-", "-"), ("-", "-"))
    comparison = pair[1].sections[0].rows[1].comparison
    speedup = f"{comparison.speedup:.3f}x [{comparison.low:.3f}, {comparison.high:.3f}]"
    assert rows["4096"][2:] == (speedup, "FASTER")
    assert [note.split(":")[0] for note in table.notes] == ["A", "B"]


def test_the_same_series_stand_in_one_table_and_the_others_apart() -> None:
    one = model("runs/one", synthetic.cases((256, 1024), ("bf16", "nvfp4"), splits=(2, 3)))
    other = model("runs/other", synthetic.cases((256, 1024), ("nvfp4", "fp8")))
    (panel,) = beside.build([one, other]).panels
    titles = [table.title for table in render.shared(panel)]
    assert titles == [
        "streams x2 torch, bf16 in A, streams x2 torch, fp8 in B",
        "streams x2 triton, nvfp4",
    ]
    (only,) = render.unshared(panel)
    assert only.title == "Only in A"
    assert [row[:2] for row in only.rows] == [
        ("streams x3 torch, bf16", "256"),
        ("streams x3 torch, bf16", "1024"),
        ("streams x3 triton, nvfp4", "256"),
        ("streams x3 triton, nvfp4", "1024"),
    ]
    assert len(only.headers) == len(only.rows[0]) == 4


def test_both_headlines_stand_in_both_documents(pair: list[ReportModel], tmp_path: Path) -> None:
    paths = render.write(beside.build(pair), tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == ["report.html", "report.md", "plots/beside-1.svg"]
    for path in paths[:2]:
        text = html.unescape(path.read_text())
        assert "TBO (streams x2 triton, nvfp4-w4a16)" in text
        assert "TBO (streams x2 torch, bf16)" in text
        assert "bench report runs/fp4 runs/half --out DIR" in text
        assert "bench compare runs/half runs/fp4 --across precision --anyway" in text
        assert "from B to A, bench compare joins 2 of B's 3 rows, across precision; --anyway, " in text
        assert "machine NVIDIA H200 against NVIDIA H100 80GB HBM3" in text
    assert "<script" not in paths[0].read_text()


def test_links_that_differ_are_named(pair: list[ReportModel]) -> None:
    local = [replace(case, link=LOCAL) for case in synthetic.cases((1024, 4096))]
    (panel,) = beside.build([pair[0], model("runs/local", local)]).panels
    (table,) = render.shared(panel)
    assert table.title.endswith(" · link paced h800-nvlink-ep8 in A, local in B")


def test_doubts_are_carried_over_by_kind(tmp_path: Path) -> None:
    cases = synthetic.cases((256, 4096))
    doubted = report.build(
        synthetic.StubRun(synthetic.Builder(passes=2, pairs=2, change=flagged).trials(cases), Path("runs/hot"))
    )
    sure = model("runs/cool", cases)
    paths = render.write(beside.build([doubted, sure]), tmp_path)
    for path in paths[:2]:
        assert path.read_text().count("Doubts: slowed down by SwPowerCap in 1 of 2 rows, at 4096 tokens.") == 1
    assert len(render.about(beside.build([doubted, sure]).sides[1])) == 1


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
