"""report.md: the whole report as Markdown, for a pull request or a terminal."""

import re
from collections.abc import Iterable, Sequence

from bench.render import (
    alone,
    backends,
    kernel_section,
    limits,
    missing,
    noise,
    sentences,
    tables,
    timeline_section,
    words,
    worth,
)
from bench.render.picture import Picture, showing
from bench.report_model import ReportModel


def page(model: ReportModel, pictures: Sequence[Picture] = ()) -> str:
    """The document, its pictures as links relative to it."""
    lines = ["# Does two-batch overlap pay?", "", f"**{plain(sentences.headline(model))}**", ""]
    lines += [line for said in missing.gaps(model) for line in (f"**{plain(said)}**", "")]
    lines += [f"Question: {plain(model.question)}", ""] if model.question else []
    lines += [f"Machine: {plain(sentences.machine(model))}. Run: {code(model.run)}, {model.passes} passes.", ""]
    answers = [" ".join(sentences.full_answer(section, model)) for section in model.sections]
    answers += worth.lines(model)
    lines += ["## Answers", "", *(f"- {plain(line)}" for line in answers), ""] if answers else []
    how = (sentences.rule(model), *noise.floor(model), *noise.off_against_off(model), missing.checks(model))
    lines += [line for said in how for line in (plain(said), "")]
    lines += picture_lines(showing(pictures, None))
    for table in (*alone.tables(model), *backends.tables(model)):
        lines += [*table_lines(table), ""]
    for section in model.sections:
        lines += [f"## {plain(words.series(section.series))}", ""]
        for table in tables.of(section):
            lines += [*table_lines(table), ""]
        lines += picture_lines(showing(pictures, section.series))
    lines += _timelines(model)
    lines += _kernels(model)
    failed = [f"- {plain(missing.not_timed(entry))}\n  {code(entry.command)}" for entry in model.failures]
    skipped = [f"- {plain(line)}" for line in missing.not_timed_together(model.skips)]
    for title, listed in (("Failed", failed), ("Skipped", skipped)):
        lines += [f"## {title}", "", *listed, ""] if listed else []
    lines += ["## Limits", "", "What these numbers cannot say:", "", *(f"- {line}" for line in limits.of(model)), ""]
    lines += ["## Environment", "", *table_lines(tables.environment(model)), ""]
    for table in tables.spent(model):
        lines += [*table_lines(table), ""]
    lines += ["## Repeat", "", "```", *model.commands, *timeline_section.missing(model), "```", ""]
    return "\n".join(lines)


def _timelines(model: ReportModel) -> list[str]:
    if not (model.timelines or model.unreadable):
        return []
    lines = ["## Timelines", ""]
    lines += [line for said in model.unreadable for line in (f"**{plain(said)}**", "")]
    lines += [line for said in timeline_section.between_tools(model.timelines) for line in (plain(said), "")]
    for kept in model.timelines:
        for block in timeline_section.of(kept, timeline_section.timed(model), model.shortfalls):
            lines += [f"### {plain(block.title)}", "", *picture_lines([block.picture])]
            lines += [line for table in block.tables for line in (*table_lines(table), "")]
            lines += ["Why no more overlap:", "", *(f"- {plain(cause)}" for cause in block.causes), ""]
            lines += [line for doubt in block.doubts for line in (plain(doubt), "")]
        lines += [plain(timeline_section.about(kept)), "", "```", kept.command, "```", ""]
    return lines


def _kernels(model: ReportModel) -> list[str]:
    lines = ["## Kernels", ""] if model.kernel_profiles else []
    for profile in model.kernel_profiles:
        lines += [f"### {plain(kernel_section.title(profile))}", ""]
        lines += [line for table in kernel_section.tables(profile) for line in (*table_lines(table), "")]
        lines += [plain(kernel_section.about(profile)), "", "```", profile.command, "```", ""]
    return lines


_SPECIAL = str.maketrans({"|": r"\|", "<": r"\<", "\\": r"\\", "`": r"\`"})


def plain(text: str) -> str:
    """Keep what Markdown would read as a cell's end or as HTML, and hide."""
    return text.translate(_SPECIAL)


def code(text: str) -> str:
    """A code span, in more backticks than the text has in a row."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    blank = " " if longest else ""
    return f"{'`' * (longest + 1)}{blank}{text}{blank}{'`' * (longest + 1)}"


def table_lines(table: tables.Table) -> list[str]:
    """A Markdown table under its title."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(map(plain, cells))} |"

    rule = ["---", *["---" if table.of_words else "---:"] * (len(table.headers) - 1)]
    return [
        f"**{table.title}**",
        "",
        line(table.headers),
        f"| {' | '.join(rule)} |",
        *(line(row) for row in table.rows),
        *(text for note in table.notes for text in ("", plain(note))),
    ]


def picture_lines(pictures: Iterable[Picture]) -> list[str]:
    lines = []
    for picture in pictures:
        lines += [f"![{_in_brackets(picture.title)}]({picture.path})", ""]
        lines += [f"Repeat: {code(picture.command)}", ""] if picture.command else []
    return lines


def _in_brackets(title: str) -> str:
    return plain(title).replace("]", r"\]")
