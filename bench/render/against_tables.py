"""Run against run as rows of text: TBO's speed-ups, and the times beside them."""

from bench.against import Against, Section
from bench.deciding.changes import Change, Times
from bench.render import against_sentences, words
from bench.render.tables import Table, Unit, unit_for


def changes(model: Against, section: Section) -> Table:
    """Both speed-ups, their change and its verdict."""

    def cells(row: Change) -> tuple[str, ...]:
        return (
            words.count(row.tokens),
            words.factor(row.base.speedup, None, None),
            words.factor(row.new.speedup, None, None),
            against_sentences.change(row),
            row.verdict,
        )

    return Table(
        "TBO's speed-up",
        ("tokens", "BASE speed-up", "NEW speed-up", "change", "verdict"),
        tuple(map(cells, section.rows)),
        (
            *against_sentences.undecided(section),
            *against_sentences.doubts(model, section),
            *against_sentences.other_work(section),
        ),
    )


def times(section: Section) -> Table:
    """T1 and T2o of both runs."""
    unit = unit_for(s for row in section.rows for time in row.times for s in (time.base_s, time.new_s))
    return Table(
        "Times",
        ("tokens", "run", f"BASE {unit.name}", f"NEW {unit.name}", "NEW/BASE", "verdict"),
        tuple(_time(row, time, unit) for row in section.rows for time in row.times),
        (*against_sentences.undecided_times(section), against_sentences.caption(section)),
    )


def _time(row: Change, time: Times, unit: Unit) -> tuple[str, ...]:
    found = time.difference
    return (
        words.count(row.tokens),
        time.role,
        unit.text(time.base_s),
        unit.text(time.new_s),
        words.UNKNOWN if found is None else words.factor(found.ratio, found.low, found.high),
        time.verdict,
    )
