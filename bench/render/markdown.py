"""report.md: the whole report as Markdown, for a pull request or a terminal."""

from collections.abc import Iterable, Sequence

from bench.render import sentences, tables, words
from bench.render.picture import Picture, showing
from bench.report_model import ReportModel


def page(model: ReportModel, pictures: Sequence[Picture] = ()) -> str:
    """The document, its pictures as links relative to it."""
    lines = ["# Does two-batch overlap pay?", "", f"**{sentences.headline(model)}**", ""]
    lines += [line for said in sentences.coverage(model) for line in (f"**{said}**", "")]
    lines += [f"Question: {_plain(model.question)}", ""] if model.question else []
    lines += [f"Machine: {sentences.machine(model)}. Run: `{model.run}`, {model.passes} passes.", ""]
    lines += ["## Answers", ""]
    lines += [f"- {' '.join(sentences.full_answer(section, model))}" for section in model.sections]
    lines += [f"- {_plain(line)}" for line in sentences.alone(model)]
    lines += ["", sentences.rule(model), "", sentences.noise(model), "", sentences.checks(model), ""]
    lines += _pictures(showing(pictures, None))
    for section in model.sections:
        lines += [f"## {words.series(section.series)}", ""]
        for table in tables.of(section):
            lines += [*_table(table), ""]
        lines += _pictures(showing(pictures, section.series))
    failed = [f"- {_plain(sentences.not_timed(entry))}\n  `{entry.command}`" for entry in model.failures]
    skipped = [f"- {_plain(line)}" for line in sentences.not_timed_together(model.skips)]
    for title, listed in (("Failed", failed), ("Skipped", skipped)):
        lines += [f"## {title}", "", *listed, ""] if listed else []
    lines += ["## Environment", "", *_table(tables.environment(model)), ""]
    lines += ["## Repeat", "", "```", *model.commands, "```", ""]
    return "\n".join(lines)


_SPECIAL = str.maketrans({"|": r"\|", "<": r"\<", "\\": r"\\"})


def _plain(text: str) -> str:
    """Keep what Markdown would read as a cell's end or as HTML, and hide."""
    return text.translate(_SPECIAL)


def _table(table: tables.Table) -> list[str]:
    """A Markdown table under its title."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(map(_plain, cells))} |"

    rule = ["---", *["---" if table.of_words else "---:"] * (len(table.headers) - 1)]
    return [
        f"**{table.title}**",
        "",
        line(table.headers),
        f"| {' | '.join(rule)} |",
        *(line(row) for row in table.rows),
        *(text for note in table.notes for text in ("", _plain(note))),
    ]


def _pictures(pictures: Iterable[Picture]) -> list[str]:
    return [line for picture in pictures for line in (f"![{picture.title}]({picture.path})", "")]
