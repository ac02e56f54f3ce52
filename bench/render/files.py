"""Write a report into a folder: report.html, report.md, plots/."""

from pathlib import Path

from bench.errors import BenchError
from bench.render import html, markdown, plots
from bench.report_model import ReportModel


def write(model: ReportModel, folder: Path) -> list[Path]:
    """Write all files, replacing those of an earlier report; their paths, the HTML page first.

    Raises:
        BenchError: the folder cannot be written.
    """
    pictures = plots.of(model)
    texts = {
        folder / "report.html": html.page(model, pictures),
        folder / "report.md": markdown.page(model, pictures),
        **{folder / picture.path: picture.standalone for picture in pictures},
    }
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{error.filename or folder}: cannot write the report: {error.strerror}") from error
    return list(texts)
