"""Write a report into a folder: report.html, report.md, plots/, and the pictures of its timelines/."""

from collections.abc import Mapping
from pathlib import Path

from bench.errors import BenchError
from bench.render import html, markdown, plots, timeline_section
from bench.render.picture import PLOTS, Picture
from bench.report_model import ReportModel


def write_picture(picture: Picture, folder: Path) -> Path:
    """One picture as a file of ``folder``; its path."""
    path = folder / f"{picture.name}.svg"
    path.write_text(picture.standalone, encoding="utf-8")
    return path


def write(model: ReportModel, folder: Path) -> list[Path]:
    """Write all files, replacing those of an earlier report; their paths, the HTML page first.

    Raises:
        BenchError: the folder cannot be written.
    """
    pictures = [*plots.of(model), *timeline_section.pictures(model.timelines)]
    texts = {
        folder / "report.html": html.page(model, pictures),
        folder / "report.md": markdown.page(model, pictures),
        **{folder / picture.path: picture.standalone for picture in pictures},
    }
    return write_texts(folder, texts)


def write_texts(folder: Path, texts: Mapping[Path, str]) -> list[Path]:
    """Write files of a report's folder, plots/ beside them even where there is no plot; their paths.

    Raises:
        BenchError: the folder cannot be written.
    """
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{error.filename or folder}: cannot write the report: {error.strerror}") from error
    return list(texts)
