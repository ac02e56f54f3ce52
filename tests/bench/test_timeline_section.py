"""Timelines that a run keeps: the folder, the figure, and the report's section."""

import itertools
import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import kept_profile
import numpy as np
import pytest
import synthetic

from bench import report
from bench.errors import BenchError
from bench.profiling import kept
from bench.profiling.kept import Kept
from bench.profiling.request import Request
from bench.render import files, html, markdown, palette, timeline_plot, timeline_section
from bench.report_model import ReportModel
from bench.timeline.model import UNKNOWN
from bench.timeline.strip import Bar, Lane, Strip
from moe_impl.stages import Stage


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds one profile and nothing else."""
    folder = tmp_path_factory.mktemp("run")
    kept_profile.plant(folder)
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> ReportModel:
    builder = synthetic.Builder(passes=2, pairs=2)
    return report.build(synthetic.StubRun(builder.trials([kept_profile.case()]), path=run))


@pytest.fixture(scope="module")
def profile(model: ReportModel) -> Kept:
    (found,) = model.timelines
    return found


def drawn(svg: str) -> str:
    return " | ".join(re.findall(r">([^<>]+)</text>", svg))


def test_what_is_kept_is_read_back_and_raw_text_is_packed(run: Path, profile: Kept) -> None:
    folder = run / "timelines" / profile.folder
    assert {path.name for path in folder.iterdir()} == {f"variant-{i}.json.gz" for i in range(3)} | {"analysis.json"}
    assert folder.name == f"{kept_profile.case().case_id}-torch"
    assert kept.load(folder) == profile
    assert [one.variant.role for one in profile.profiled] == ["T1", "T2s", "T2o"]
    assert [one.analysis.source for one in profile.profiled] == [f"variant-{i}.json.gz" for i in range(3)]
    assert profile.missing == ()


def test_a_trace_is_packed_to_the_same_bytes(tmp_path: Path) -> None:
    packed = []
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.json").write_text("{}")
        packed.append(kept.gzipped(tmp_path / name / "x.json").read_bytes())
        assert not (tmp_path / name / "x.json").exists()
    assert packed[0] == packed[1]


def test_the_section_shows_off_beside_on(model: ReportModel) -> None:
    (block,) = timeline_section.of(model.timelines[0])
    shares, stages = block.tables
    assert shares.headers == ("", "T1 off triton", "T2s serial x2 triton", "T2o streams x2 triton")
    rows = {row[0]: row[1:] for row in shares.rows}
    assert rows["span, ms"] == ("82.34", "85.85", "72.40")
    assert rows["overlapped"] == ("0 %", "0 %", "22.9 %")
    assert rows["communication that was hidden"] == ("0 %", "0 %", "68.2 %")
    assert {"compute", "communication", "exposed communication", "of it blocking compute"} < set(rows)
    assert {"idle, host was late", "idle, something was waited for"} < set(rows)
    dilated = {row[0]: row[1:] for row in stages.rows}
    assert list(dilated)[:2] == ["route", "dispatch"], "in the order in which a micro-batch passes them"
    assert dilated["merge"] == ("1.23", "1.25", "1.75", "1.40")
    assert block.causes[0].startswith("nothing else to compute (79.6 %): during 80% of exposed communication")
    assert block.doubts == ("Doubt (T1, T2s, T2o): no range names an iteration: the whole trace counts as one.",)


def test_page_and_markdown_show_every_block_and_how_to_repeat_it(model: ReportModel) -> None:
    page, text = html.page(model), markdown.page(model)
    for shown in (page, text):
        assert "Timelines</h2>" in shown or "## Timelines" in shown
        assert "nothing else to compute" in shown
        assert "bench profile RUN --case ID --tool torch" in shown
        assert "82.34" in shown
    assert page.count("<svg") == 1
    (link,) = re.findall(r"!\[Timeline.*?\]\((.*?)\)", text)
    assert link == f"timelines/{model.timelines[0].folder}/timeline-1.svg"


def test_the_pictures_file_lies_where_markdown_looks_for_it(model: ReportModel, tmp_path: Path) -> None:
    written = {str(path.relative_to(tmp_path)) for path in files.write(model, tmp_path)}
    linked = re.findall(r"!\[.*?\]\((.*?)\)", (tmp_path / "report.md").read_text())
    assert set(linked) < written
    assert sum(link.startswith("timelines/") for link in linked) == 1
    assert all((tmp_path / link).is_file() for link in linked)


def test_a_run_without_profiles_has_no_such_section(model: ReportModel) -> None:
    bare = replace(model, timelines=())
    assert "Timelines" not in html.page(bare) + markdown.page(bare)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "analysis.json: cannot be read: No such file or directory"),
        ("{", "analysis.json: no readable analysis: the file: Invalid JSON"),
        ('{"tool": "gdb"}', "no readable analysis"),
        ("version", "found version 99, expected 1; profile the case again"),
        ('{"version": 2, "cases": []}', "found version 2, expected 1; profile the case again"),
        ("emptied", "a variant without iterations or lanes; profile the case again"),
    ],
)
def test_a_profile_that_cannot_be_read_is_told_and_stops_nothing(
    run: Path, tmp_path: Path, content: str | None, said: str
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (broken := tmp_path / "run" / "timelines" / "broken").mkdir()
    (good,) = (run / "timelines").glob("*/analysis.json")
    stored = json.loads(good.read_text())
    if content == "version":
        content = json.dumps(stored | {"version": 99})
    if content == "emptied":
        stored["profiled"][1]["analysis"]["iterations"] = []
        content = json.dumps(stored)
    if content is not None:
        (broken / "analysis.json").write_text(content)
    trials = synthetic.Builder(passes=1, pairs=1).trials([kept_profile.case()])
    found = report.build(synthetic.StubRun(trials, path=tmp_path / "run"))
    (line,) = found.unreadable
    assert said in line
    assert len(found.timelines) == 1
    assert said in html.page(found).replace("&#39;", "'")
    assert said in markdown.page(found)


def test_a_raw_report_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "variant-0.json").write_text("[]")
    request = Request(kept_profile.case(), "torch", str(tmp_path))
    with pytest.raises(BenchError, match=r"variant-0\.json\.gz: no kernel, copy or set in it"):
        kept.keep(request, [tmp_path / "variant-0.json"], "again")


def test_runs_that_nsys_cannot_tell_apart_are_named(tmp_path: Path) -> None:
    sample = tmp_path / "nsys.sqlite"
    shutil.copy(kept_profile.DATA / "nsight_sample.sqlite", sample)
    found = kept.keep(Request(kept_profile.case(), "nsys", str(tmp_path)), [sample], "again")
    assert (found.profiled, len(found.missing)) == ((), 3)
    assert timeline_section.of(found) == []
    assert "not shown: off triton, serial x2 triton, streams x2 triton" in timeline_section.about(found)
    assert sample.exists(), "a binary report stays as it is"


def test_an_overlapped_variant_without_its_t2s_has_no_dilation(profile: Kept) -> None:
    alone = replace(profile, profiled=profile.profiled[2:])
    (block,) = timeline_section.of(alone)
    assert block.tables[0].headers == ("", "T2o streams x2 triton")
    assert {row[-1] for row in block.tables[1].rows} == {"n/a"}


def test_the_figure_names_runs_lanes_stages_and_its_axis(profile: Kept) -> None:
    (picture,) = timeline_section.pictures([profile])
    ET.fromstring(picture.standalone.encode())
    text = drawn(picture.svg)
    assert (
        text.index("T1 off triton: 82.3 ms")
        < text.index("T2s serial x2")
        < text.index("T2o streams x2 triton: 72.4 ms")
    )
    assert "68.2 % of 24.3 ms communication hidden, 7.72 ms exposed" in text
    for needed in ("stream 7, ubatch 1", "stream 15, ubatch 0", "exposed comm.", "ms", "no known stage", "gemm1"):
        assert needed in text
    for stage in ("dispatch", "gemm1", "combine"):
        assert palette.STAGES[stage].lower() in picture.svg.lower()
    assert timeline_section.pictures([profile]) == [picture], "the same text each time"


def strip(**changed: object) -> Strip:
    bars = (Bar(0, 600, "gemm1", 0), Bar(600, 1000, "", UNKNOWN))
    plain = Strip((Lane(7, UNKNOWN, bars),), ((600, 700),), 1000, 1000, 200, 100, "named", 1, 1, 1)
    return replace(plain, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "1 us an iteration, 50 % of 200 ns communication hidden, 100 ns exposed"),
        ({"iterations": 5}, "1 us an iteration, 50 % of 200 ns communication hidden, 100 ns exposed; median of 5"),
        ({"comm_ns": 0, "exposed_ns": 0}, "1 us an iteration"),
        ({"comm_ns": 0, "told": "untold"}, "1 us in all (no range names iterations)"),
        (
            {"span_ns": 4000, "layers": 8, "layers_shown": 4},
            "4 us an iteration, 50 % of 200 ns communication hidden, 100 ns exposed; its first 1 us, 4 of 8 layers",
        ),
        (
            {"span_ns": 4000, "told": "untold"},
            "4 us in all (no range names iterations), 50 % of 200 ns communication hidden, 100 ns exposed; "
            "its first 1 us, 1 of 1 layers",
        ),
    ],
)
def test_a_run_says_what_of_it_is_shown(changed: dict[str, object], said: str) -> None:
    assert timeline_plot.about(strip(**changed)) == said


def test_work_that_took_no_time_is_drawn() -> None:
    nothing = strip(lanes=(Lane(7, 0, (Bar(0, 0, "gemm1", 0),)),), exposed=(), shown_ns=0, span_ns=0)
    assert "stream 7, ubatch 0" in drawn(timeline_plot.svg("t", [timeline_plot.Shown("T1", nothing)]))


def test_a_long_name_goes_on_in_a_second_line() -> None:
    long = timeline_plot.Shown("T2o " + "streams x2 ragged " * 8, strip())
    assert len(long.title) == 2
    assert all(len(line) <= timeline_plot.TITLE_WIDTH for line in long.title)
    text = drawn(timeline_plot.svg("t", [long, timeline_plot.Shown("T1", strip())]))
    assert "stream 7 |" in text, "a lane of no micro-batch"


CONES = {
    "all": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
}
"""Linear RGB as it looks to them: Machado, Oliveira and Fernandes 2009, severity 1."""


def lab(colour: str, cones: str) -> np.ndarray:
    """CIELAB under D65."""
    srgb = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(CONES[cones] @ linear, 0, 1) / np.array([0.9505, 1, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("cones", CONES)
def test_stages_can_be_told_apart_by_colour_blind_readers(cones: str) -> None:
    for one, other in itertools.combinations(palette.STAGES.values(), 2):
        assert np.linalg.norm(lab(one, cones) - lab(other, cones)) > 20, (one, other)


def test_every_stage_has_a_colour_and_a_readable_label() -> None:
    assert set(palette.STAGES) == set(map(str, Stage))
    for colour in palette.STAGES.values():
        difference = abs(lab(colour, "all")[0] - lab(palette.on(colour), "all")[0])
        assert difference > 45, colour
