"""Two runs on the same axes, as a page and as Markdown: speed-up over tokens, and the verdicts side by side."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from bench.beside import Beside, Shared, Side
from bench.render import files, html, markdown, plots, sentences, words
from bench.render.picture import Picture
from bench.render.tables import Table
from bench.report_model import Section

RULE = (
    "Each speed-up is T1 over T2o within its own run, where drift cancels; "
    "whether it changed between the runs says bench compare."
)


def write(found: Beside, folder: Path) -> list[Path]:
    """report.html, report.md and plots/, replacing earlier ones; their paths, the page first.

    Raises:
        BenchError: the folder cannot be written.
    """
    pictures = pictures_of(found)
    texts = {
        folder / "report.html": page(found, pictures),
        folder / "report.md": text(found, pictures),
        **{folder / picture.path: picture.standalone for picture in pictures},
    }
    return files.write_texts(folder, texts)


def pictures_of(found: Beside) -> list[Picture]:
    """One plot a shape of the layer."""
    return [_picture(panel, index) for index, panel in enumerate(found.panels, 1)]


def page(found: Beside, pictures: list[Picture]) -> str:
    """The HTML document."""
    return (
        html.environment()
        .get_template("beside.html.j2")
        .render(
            found=found,
            rule=RULE,
            sentences=sentences,
            panels=[
                (_title(panel), html.inline([picture]), table(panel))
                for panel, picture in zip(found.panels, pictures, strict=True)
            ],
            commands=commands(found),
            verdicts=html.VERDICTS,
        )
    )


def text(found: Beside, pictures: list[Picture]) -> str:
    """The Markdown document."""
    lines = ["# Does two-batch overlap pay? Two runs on the same axes", ""]
    for side in found.sides:
        said = " ".join((sentences.headline(side.model), *sentences.gaps(side.model), _where(side)))
        lines += [f"- **{side.name}**: {markdown.plain(said)}"]
    lines += ["", RULE, ""]
    for panel, picture in zip(found.panels, pictures, strict=True):
        lines += [
            f"## {_title(panel)}",
            "",
            *markdown.picture_lines([picture]),
            *markdown.table_lines(table(panel)),
            "",
        ]
    lines += ["## Repeat", "", "```", *commands(found), "```", ""]
    return "\n".join(lines)


def commands(found: Beside) -> list[str]:
    """What makes this again, and what decides whether the runs differ."""
    runs = [side.model.run for side in found.sides]
    return [shlex.join(["bench", "report", *runs, "--out", "DIR"]), shlex.join(["bench", "compare", *runs])]


def table(panel: Shared) -> Table:
    """Rows by token count, a column a series: speed-up and verdict."""
    tokens = sorted({row.tokens for _, section in panel.curves for row in section.rows})

    def cell(section: Section, count: int) -> str:
        rows = [row.comparison for row in section.rows if row.tokens == count]
        return f"{words.speedup(rows[0])} {rows[0].verdict}" if rows else "-"

    return Table(
        "Speed-up and verdict",
        ("tokens", *(_label(panel, side, section) for side, section in panel.curves)),
        tuple((words.count(count), *(cell(section, count) for _, section in panel.curves)) for count in tokens),
        tuple(dict.fromkeys(_captions(panel))),
    )


def _captions(panel: Shared) -> Iterable[str]:
    for side, section in panel.curves:
        yield f"{side.name}: {sentences.caption(section)}"


def _title(panel: Shared) -> str:
    return f"Speed-up of TBO over tokens: {words.shape(panel.curves[0][1].series.workload)}"


def _where(side: Side) -> str:
    return f"({sentences.machine(side.model)}, run {side.model.run}, {side.model.passes} passes)"


def _label(panel: Shared, side: Side, section: Section) -> str:
    links = {words.link(other.series.link) for _, other in panel.curves}
    where = f", {words.link(section.series.link)}" if len(links) > 1 else ""
    return f"{side.name}: {words.short_series(section.series)}{where}"


def _picture(panel: Shared, index: int) -> Picture:
    curves = [
        plots.Curve(
            section,
            _label(panel, side, section),
            coloured_by=f"{section.series.workload.precision}, {words.link(section.series.link)}",
            marked_by=f"{side.name}, {section.series.variant.label}",
        )
        for side, section in panel.curves
    ]
    labels: dict[str, list[str]] = {}
    for side, section in panel.curves:
        labels.setdefault(side.name, []).extend(sentences.labels(section))
    models = {side.name: side.model for side, _ in panel.curves}
    said = [f"{name}: {', '.join(plots.said(models[name], found))}" for name, found in labels.items()]
    return plots.speedups(f"beside-{index}", _title(panel), curves, said)
