"""Tables of a run without overlapped variants: what each one took, and T1 beside a second run of itself (A/A)."""

from bench.deciding.alone import Alone
from bench.deciding.join import Series, series_of
from bench.deciding.off_against_off import OffAgainstOff
from bench.render import noise, sentences, words
from bench.render.tables import Table, Unit, unit_for
from bench.report_model import ReportModel


def tables(model: ReportModel) -> list[Table]:
    """One a series; none where an overlapped variant ran, whose tables then tell all."""
    again: dict[Series, dict[int, OffAgainstOff]] = {}
    for found in model.off_against_off:
        again.setdefault(series_of(found.workload, found.link, found.variant), {})[found.workload.tokens] = found
    return [_table(found, again.get(found.series, {})) for found in model.alone]


def _table(found: Alone, again: dict[int, OffAgainstOff]) -> Table:
    unit = unit_for([seconds for _, seconds in found.times_s] + [one.again_s for one in again.values()])
    doubts = [(tokens, (*flags, *(again[tokens].flags if tokens in again else ()))) for tokens, flags in found.flags]
    caption = "; ".join([sentences.mode(found.series.variant, found.timers), *found.labels])
    return Table(
        words.series(found.series),
        ("tokens", unit.name, *((f"again {unit.name}", "A/A", "verdict") if again else ())),
        tuple(
            (words.count(tokens), unit.text(seconds), *(_again(again.get(tokens), unit) if again else ()))
            for tokens, seconds in found.times_s
        ),
        (
            *sentences.undecided_at((tokens, one.reasons) for tokens, one in again.items()),
            *noise.false_alarm(again.values()),
            *sentences.doubts_at(doubts),
            f"{caption}.",
        ),
    )


def _again(one: OffAgainstOff | None, unit: Unit) -> tuple[str, str, str]:
    if one is None:
        return (words.UNKNOWN,) * 3
    known = one.estimate
    ratio = words.UNKNOWN if known is None else words.factor(known.speedup, known.low, known.high)
    return unit.text(one.again_s), ratio, one.verdict
