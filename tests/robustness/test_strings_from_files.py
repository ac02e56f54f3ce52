"""What a file says of itself is shown as text: no markup in a page, no formula in a picture, no code to a terminal."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import synthetic
from in_process import bench
from rich.text import Text

from bench.printable import printable
from bench.render import printing
from bench.results import Status, to_record
from bench.running.worker_process import one_line

SCRIPT = "</title></style><script>alert(1)</script><img src=x onerror=alert(1)>"
TERMINAL = "\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e"
FORMULA = "$\\frac{$ \\ %"
CONFIG = f"""\
# Question: does {SCRIPT} {FORMULA} show as text?
schema: 1
case: {{model: deepseek-v3, ep_size: 8, layers: 2, tokens: [256], precision: bf16, link: {{paced: h800-nvlink-ep8}}}}
variants: [{{engine: streams, split_factor: 2}}]
measure: {{passes: 2}}
"""


def planted_run(folder: Path, planted: str) -> Path:
    """A run in which every text that is free says ``planted``."""
    trials = synthetic.Builder(passes=2, pairs=2).trials(synthetic.cases((256,), splits=(2, 4)))
    skipped = [
        replace(
            trial, measurements=(*trial.measurements[:-1], synthetic.failed(trial.measurements[-1], status, planted))
        )
        for trial, status in zip(trials, (Status.SKIPPED, Status.ERROR), strict=True)
    ]
    records = [plant(json.loads(json.dumps(to_record(trial))), planted) for trial in skipped]
    folder.mkdir(parents=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "config.resolved.yaml").write_text(CONFIG)
    environment = {"torch": planted, planted: planted, "packages": {planted: [planted]}}
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


FREE = {"name", "note", "source", "gpu", "torch_version", "triton_version", "reason"}


def plant(record: Any, planted: str) -> Any:
    if isinstance(record, list):
        return [plant(item, planted) for item in record]
    if not isinstance(record, dict):
        return record
    changed = {
        key: planted if key in FREE and value is not None else plant(value, planted) for key, value in record.items()
    }
    return {key: [planted] if key in ("flags", "labels", "limits") else value for key, value in changed.items()}


class Page(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


@pytest.mark.parametrize("planted", [SCRIPT, TERMINAL + FORMULA], ids=["markup", "codes and a formula"])
def test_a_page_shows_every_planted_text_as_text(tmp_path: Path, planted: str) -> None:
    folder = planted_run(tmp_path / planted.translate(str.maketrans("/<>\x1b\x07\x9b\u202e", "_______")), planted)
    said = bench("report", folder)
    assert said.code == 0, said
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    if planted is SCRIPT:
        assert "&lt;script&gt;alert(1)" in text, "it is there, as text"
        markdown = (folder / "report.md").read_text()
        assert "alert(1)" in markdown
        outside_code = re.sub(r"```.*?```|`[^`]*`", "", markdown, flags=re.DOTALL)
        assert re.findall(r"(?<!\\)<(?:script|img|/title)", outside_code) == []
    for picture in (folder / "plots").glob("*.svg"):
        drawn = ElementTree.fromstring(picture.read_text())
        assert not [element.tag for element in drawn.iter() if element.tag.endswith("script")]


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_no_control_code_of_a_file_reaches_the_terminal(tmp_path: Path, verb: str) -> None:
    said = bench(verb, planted_run(tmp_path / "run", TERMINAL))
    assert said.code == 0
    shown = said.out + said.err
    assert printable(shown) == shown


def test_nor_do_those_of_a_refused_file(tmp_path: Path) -> None:
    folder = planted_run(tmp_path / "run", TERMINAL)
    line = json.loads((folder / "results.jsonl").read_text().splitlines()[0])
    (folder / "results.jsonl").write_text(json.dumps({**line, TERMINAL: 1}) + "\n")
    said = bench("compare", folder)
    assert (said.code, said.out) == (2, "")
    assert "unknown field" in said.err
    assert printable(said.err) == said.err


def test_on_a_terminal_our_colours_stay_and_theirs_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    printing.show(Text(f"a{TERMINAL}b", style="bold red"))
    out = capsys.readouterr().out
    assert out.startswith("\x1b[1;31ma")
    assert "\x1b]" not in out
    assert "\x1b[2J" not in out
    assert "\x9b" not in out
    assert "\u202e" not in out


def test_a_workers_last_words_are_one_printable_line() -> None:
    assert one_line("x\n\x1b[31mred\x1b[0m\n\x1b]0;pwned\x07end\n") == "x | red | \ufffd]0;pwned\ufffdend"
    assert printable("two\nlines, ü and 漢字") == "two\nlines, ü and 漢字"
