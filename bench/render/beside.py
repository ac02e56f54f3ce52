"""Two runs on the same axes, as a page and as Markdown: speed-up over tokens, and the verdicts side by side."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from bench.beside import Beside, Shared, Side
from bench.deciding.across import AXES
from bench.render import files, html, markdown, missing, plots, sentences, words
from bench.render.picture import Picture
from bench.render.tables import Table
from bench.report_model import ReportModel, Section

RULE = "Each speed-up is T1 over T2o within its own run, where drift cancels."
NOT_JOINED = (
    "No row of one run stands beside a row of the other in bench compare: none is the same case and variant in both, "
    "and none differs in its {axes} alone."
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
            missing=missing,
            about=about,
            panels=[
                (_title(panel), html.inline([picture]), shared(panel), unshared(panel))
                for panel, picture in zip(found.panels, pictures, strict=True)
            ],
            joined=joined(found),
            commands=commands(found),
            verdicts=html.VERDICTS,
        )
    )


def text(found: Beside, pictures: list[Picture]) -> str:
    """The Markdown document."""
    lines = ["# Does two-batch overlap pay? Two runs on the same axes", ""]
    for side in found.sides:
        said = " ".join((sentences.headline(side.model), *missing.gaps(side.model), *about(side)))
        lines += [f"- **{side.letter}** is {markdown.plain(f'{side.name}: {said}')}"]
    lines += ["", RULE, ""]
    for panel, picture in zip(found.panels, pictures, strict=True):
        lines += [f"## {_title(panel)}", "", *markdown.picture_lines([picture])]
        lines += [line for table in (*shared(panel), *unshared(panel)) for line in (*markdown.table_lines(table), "")]
    lines += ["## Repeat", "", markdown.plain(joined(found)), "", "```", *commands(found), "```", ""]
    return "\n".join(lines)


def about(side: Side) -> list[str]:
    """Where it was measured, its oracle checks, and how many of its rows are in doubt, a line each."""
    model = side.model
    where = f"{sentences.machine(model)}, {model.passes} passes, {model.run}. {missing.checks(model)}"
    return [where, *_doubts(model)]


def _doubts(model: ReportModel) -> list[str]:
    """``Doubts: slowed down by SwPowerCap in 12 of 56 rows, at 2048 and 8192 tokens; ...``: the run's own report names
    the rows."""
    rows = [row for section in model.sections for row in section.rows]
    found = words.by_kind_of_doubt((row.tokens, row.comparison.flags) for row in rows)
    everywhere = {row.tokens for row in rows}
    said = []
    for kind, tokens in found.items():
        some = set(tokens)
        where = f", at {words.counts(tuple(sorted(some)))} tokens" if some < everywhere else ""
        said.append(f"{kind} in {len(tokens)} of {len(rows)} rows{where}")
    return [f"Doubts: {'; '.join(said)}."] if said else []


def joined(found: Beside) -> str:
    """What ``bench compare`` makes of the two, or why nothing."""
    how = found.joined
    if how is None:
        return NOT_JOINED.format(axes=" or ".join(AXES))
    base, new = how.base.letter, how.new.letter
    across = f", across {how.across}" if how.across else ""
    joins = f"joins {how.rows} of {base}'s {how.rows_in_all} rows{across}"
    unlike = "; ".join(f"{fact.name} {words.fact(fact.base)} against {words.fact(fact.new)}" for fact in how.unlike)
    anyway = f"; --anyway, for the runs are not alike: {unlike}" if unlike else ""
    return f"To tell whether the speed-up changed from {base} to {new}, bench compare {joins}{anyway}."


def commands(found: Beside) -> list[str]:
    """What makes this again, and what decides whether the runs differ."""
    again = ["bench", "report", *(side.model.run for side in found.sides), "--out", "DIR"]
    how = found.joined
    if how is None:
        return [shlex.join(again)]
    across = ["--across", how.across] if how.across else []
    anyway = ["--anyway"] if how.unlike else []
    return [
        shlex.join(again),
        shlex.join(["bench", "compare", how.base.model.run, how.new.model.run, *across, *anyway]),
    ]


def shared(panel: Shared) -> list[Table]:
    """One for each series that both runs have, rows by token count."""
    return [_both(one, other) for one, other in panel.pairs if one is not None and other is not None]


def unshared(panel: Shared) -> list[Table]:
    """One for each run that has series of its own."""
    only = {
        "A": [one for one, other in panel.pairs if one is not None and other is None],
        "B": [other for one, other in panel.pairs if one is None and other is not None],
    }
    return [_only(letter, panel, sections) for letter, sections in only.items() if sections]


def _both(one: Section, other: Section) -> Table:
    sides = {"A": one, "B": other}
    tokens = sorted({row.tokens for section in sides.values() for row in section.rows})
    named = dict.fromkeys(words.short_series(section.series) for section in sides.values())
    links = dict.fromkeys(words.link(section.series.link) for section in sides.values())
    title = [" in A, ".join(named) + " in B" * (len(named) - 1)]
    title += [f"link {' in A, '.join(links)} in B"] if len(links) > 1 else []

    def cells(section: Section, count: int) -> tuple[str, str]:
        row = next((row.comparison for row in section.rows if row.tokens == count), None)
        return ("-", "-") if row is None else (words.speedup(row), row.verdict)

    return Table(
        " · ".join(title),
        ("tokens", "A: speed-up", "verdict", "B: speed-up", "verdict"),
        tuple((words.count(count), *cells(one, count), *cells(other, count)) for count in tokens),
        tuple(f"{letter}: {sentences.caption(section)}" for letter, section in sides.items()),
    )


def _only(letter: str, panel: Shared, sections: Sequence[Section]) -> Table:
    captions: dict[str, list[str]] = {}
    for section in sections:
        captions.setdefault(sentences.caption(section), []).append(_named(panel, section))
    rows = [(_named(panel, section), row.comparison) for section in sections for row in section.rows]
    return Table(
        f"Only in {letter}",
        ("series", "tokens", "speed-up", "verdict"),
        tuple((name, words.count(row.workload.tokens), words.speedup(row), row.verdict) for name, row in rows),
        tuple(
            f"{'; '.join(series)}: {caption}" if len(captions) > 1 else caption for caption, series in captions.items()
        ),
    )


def _title(panel: Shared) -> str:
    return f"Speed-up of TBO over tokens: {words.shape(panel.curves[0][1].series.workload)}"


def _named(panel: Shared, section: Section) -> str:
    """The series, with its link where the plot has several."""
    links = {words.link(other.series.link) for _, other in panel.curves}
    where = f", {words.link(section.series.link)}" if len(links) > 1 else ""
    return f"{words.short_series(section.series)}{where}"


def _picture(panel: Shared, index: int) -> Picture:
    curves = [
        plots.Curve(
            section,
            f"{side.letter}: {_named(panel, section)}",
            coloured_by=f"{section.series.workload.precision}, {words.link(section.series.link)}",
            marked_by=f"{side.letter}, {section.series.variant.label}",
        )
        for side, section in panel.curves
    ]
    labels: dict[str, list[str]] = {}
    for side, section in panel.curves:
        labels.setdefault(side.letter, []).extend(sentences.labels(section))
    sides = {side.letter: side for side, _ in panel.curves}
    said = [
        f"{letter} is {sides[letter].name}: {', '.join(plots.said(sides[letter].model, found))}"
        for letter, found in labels.items()
    ]
    return plots.speedups(f"beside-{index}", _title(panel), curves, ["\n".join(said)])
