"""report.html: one self-contained file, pictures inline, no script, no network."""

from collections.abc import Iterable, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.deciding.compare import Verdict
from bench.profiling.kept import Kept
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

VERDICTS = frozenset(Verdict)
"""Cells that the page colours."""


def environment() -> Environment:
    """Templates, escaping all that they show."""
    return Environment(
        loader=PackageLoader("bench.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(model: ReportModel, pictures: Sequence[Picture] = ()) -> str:
    """The document, with its pictures."""
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            model=model,
            sentences=sentences,
            missing=missing,
            noise=noise,
            worth_lines=worth.lines(model),
            words=words,
            overviews=inline(showing(pictures, None)),
            of_the_run=[*alone.tables(model), *backends.tables(model)],
            sections=[
                (section, tables.of(section), inline(showing(pictures, section.series))) for section in model.sections
            ],
            timelines=[(kept, timeline_section.about(kept), _blocks(kept, model)) for kept in model.timelines],
            kernels=[
                (profile, kernel_section.title(profile), kernel_section.tables(profile), kernel_section.about(profile))
                for profile in model.kernel_profiles
            ],
            commands=[*model.commands, *timeline_section.missing(model)],
            between_tools=timeline_section.between_tools(model.timelines),
            limits=limits.of(model),
            environment=tables.environment(model),
            spent=tables.spent(model),
            verdicts=VERDICTS,
        )
    )


def _blocks(kept: Kept, model: ReportModel) -> list[tuple[timeline_section.Block, list[tuple[str, Markup, str]]]]:
    return [
        (block, inline([block.picture]))
        for block in timeline_section.of(kept, timeline_section.timed(model), model.shortfalls)
    ]


def inline(pictures: Iterable[Picture]) -> list[tuple[str, Markup, str]]:
    """Title, element and command; matplotlib made the element and escaped the text in it."""
    return [(picture.title, Markup(picture.svg), picture.command) for picture in pictures]  # nosec B704
