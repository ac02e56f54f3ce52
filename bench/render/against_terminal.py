"""``bench compare BASE NEW`` on a terminal: the verdict first, readable at 80 columns."""

from rich.console import Group, RenderableType
from rich.text import Text

from bench.against import Against
from bench.deciding.compare import Verdict
from bench.errors import Exit
from bench.render import against_sentences, against_tables, sentences
from bench.render.terminal import left_out, listed, table, within

GATE_STYLES = {
    Exit.DONE: "bold green",
    Exit.REGRESSION: "bold red",
    Exit.UNDECIDED: "bold yellow",
    Exit.NOT_COMPARABLE: "bold red",
}


def summary(model: Against) -> RenderableType:
    """The headline, what could not be compared, two tables a series, then the rule and what else differs."""
    found = model.between
    parts: list[RenderableType] = [Text(against_sentences.headline(model), style="bold")]
    if model.gate is not None:
        parts += [Text(line, style=GATE_STYLES[model.gate]) for line in against_sentences.gate(model)]
    parts += map(Text, against_sentences.times(model))
    parts += [Text(against_sentences.sides(model)), Text(sentences.machine(model), style="dim")]
    parts += listed(
        f"Not comparable: {len(found.not_compared)} of BASE",
        against_sentences.not_compared(found.not_compared),
        "red",
    )
    shown = within(model.sections)
    if len(shown) < len(model.sections):
        lost_first = sorted(model.sections, key=lambda one: not any(row.verdict is Verdict.SLOWER for row in one.rows))
        shown = within(lost_first)
    for section in shown:
        parts += ["", Text(against_sentences.title(section), style="bold")]
        parts += [*table(against_tables.changes(model, section)), "", *table(against_tables.times(section))]
    parts += left_out(len(model.sections) - len(shown), "--json has all; those with a SLOWER row went first")
    parts += ["", *map(Text, against_sentences.rule(model)), *map(Text, against_sentences.detectable(model))]
    parts += listed(
        f"Only in NEW, or not timed in BASE: {len(found.only_in_new)}",
        against_sentences.places(found.only_in_new),
        "dim",
    )
    parts += listed(
        f"TBO turned itself off in both: {len(found.turned_off)}", against_sentences.places(found.turned_off), "dim"
    )
    parts += listed(
        f"Recorded differently: {len(model.environment)}",
        [against_sentences.differing(fact) for fact in model.environment],
        "dim",
    )
    return Group(*parts)
