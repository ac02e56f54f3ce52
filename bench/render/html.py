"""report.html: one self-contained file, pictures inline, no script, no network."""

from collections.abc import Iterable, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.deciding.compare import Verdict
from bench.render import sentences, tables, words
from bench.render.picture import Picture, showing
from bench.report_model import ReportModel


def page(model: ReportModel, pictures: Sequence[Picture] = ()) -> str:
    """The document, with its pictures."""
    environment = Environment(
        loader=PackageLoader("bench.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        model=model,
        sentences=sentences,
        words=words,
        overviews=_inline(showing(pictures, None)),
        sections=[
            (section, tables.of(section), _inline(showing(pictures, section.series))) for section in model.sections
        ],
        environment=tables.environment(model),
        verdicts=set(Verdict),
    )


def _inline(pictures: Iterable[Picture]) -> list[tuple[str, Markup]]:
    """Title and element; matplotlib made them and escaped the text in them."""
    return [(picture.title, Markup(picture.svg)) for picture in pictures]
