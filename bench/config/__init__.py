"""The sweep file: ``load`` it, ``dump_resolved`` it. Strict, and all of a file's problems at once."""

from os import PathLike
from pathlib import Path

from bench.config import nodes, sections, together
from bench.config.dump import QUESTION, dump_resolved
from bench.config.readers import Key, mapping
from bench.config.spec import CaseAxes, SweepConfig, VariantSpec
from bench.errors import BenchError
from bench.hints import did_you_mean

__all__ = ["CaseAxes", "SweepConfig", "VariantSpec", "dump_resolved", "load", "parse", "which"]

_KEYS = {
    "schema": Key(sections.read_schema, required=True),
    "case": Key(sections.read_case, required=True),
    "variants": Key(sections.read_variants),
    "measure": Key(sections.read_measure),
}


SHIPPED = (Path(__file__).parent.parent / "configs", Path(__file__).parent.parent.parent / "configs")
"""Where our own sweep files are: in a wheel, in a checkout."""


def locate(path: str | PathLike[str]) -> Path:
    """The file itself; a bare name without .yaml that is no file here may name one of ours, such as ``smoke``."""
    path = Path(path)
    if path.exists() or path.parent != Path():
        return path
    for folder in SHIPPED:
        if (folder / f"{path}.yaml").is_file():
            return folder / f"{path}.yaml"
    return path


def which(path: str | PathLike[str]) -> str | None:
    """A line for people where a bare name stands for one of our files."""
    located = locate(path)
    return None if located == Path(path) else f"sweep file: {located}"


def load(path: str | PathLike[str]) -> SweepConfig:
    """Read a sweep file, or one of ours by its bare name.

    Raises:
        BenchError: (exit code 2) one line per problem, ``FILE:LINE:COLUMN: KEY: what was found, what is allowed``.
    """
    located = locate(path)
    if not located.exists() and located.parent == Path() and not located.suffix:
        raise BenchError(f"{path}: no such file, and none of ours by that name{_near(located.name)}")
    return parse(nodes.read_text(located), str(located))


def _near(name: str) -> str:
    """``, did you mean smoke?``: those of our files that the name is part or a misspelling of, else all."""
    ours = sorted({file.stem for folder in SHIPPED for file in folder.glob("*.yaml")})
    holding = [one for one in ours if name.lower() in one]
    if holding:
        return f", did you mean {' or '.join(holding)}?"
    return did_you_mean(name, ours) or f"; there are {', '.join(ours)}"


def parse(text: str, source: str) -> SweepConfig:
    """Read a sweep file's text; ``source`` names it in messages. Raises BenchError as :func:`load` does."""
    problems = nodes.Problems(source)
    try:
        root = nodes.parse(text, problems)
        values = mapping(root, "", problems, _KEYS)
        if values is not None:
            together.refuse_impossible(root, values, problems)
    except RecursionError:
        raise BenchError(f"{source}: nested too deeply") from None
    problems.raise_all()
    assert values is not None  # a problem was noted otherwise
    return SweepConfig(**{key: value for key, value in values.items() if key != "schema"}, question=question(text))


def question(text: str) -> str:
    """The header comment's paragraph that starts with ``# Question:``, or nothing."""
    said: list[str] = []
    for line in text.splitlines():
        comment = line.removeprefix("#").strip()
        if not line.startswith("#") or (said and not comment):
            break
        if said:
            said.append(comment)
        elif comment.startswith(QUESTION):
            said.append(comment.removeprefix(QUESTION).strip())
    return " ".join(said)
