"""The table that sets backends side by side: what their grouped GEMMs take, by token count."""

from collections.abc import Iterable

from bench.deciding.backends import Backends, GemmTime
from bench.deciding.join import Series, series_of
from bench.render import words
from bench.render.tables import Table, Unit, unit_for
from bench.report_model import ReportModel

ABOUT = "gemm1 + gemm2 of one layer, medians of the instrumented passes of unsplit runs. No verdict."
ROOFLINE = (
    "Of roofline: the least time at this GPU's measured ceilings, weights in the bytes that the precision stores, "
    "whatever a backend reads, over the time."
)


def tables(model: ReportModel) -> list[Table]:
    """One for all cases that differ in their token counts alone."""
    series: dict[Series, list[Backends]] = {}
    for found in model.backends:
        series.setdefault(series_of(found.workload, found.link, found.setting), []).append(found)
    return [_table(key, sorted(rows, key=lambda row: row.workload.tokens)) for key, rows in series.items()]


def _table(series: Series, rows: list[Backends]) -> Table:
    times = [time for row in rows for time in row.times]
    unit = unit_for(time.seconds for time in times)
    first = rows[0].reference.experts
    others = [name for name in dict.fromkeys(time.variant.experts for time in times) if name != first]
    headers = ["tokens", f"{first} {unit.name}", f"{first} of roofline"]
    for name in others:
        headers += [f"{name} {unit.name}", f"{first} / {name}", f"{name} of roofline"]
    work, setting = series.workload, series.variant
    return Table(
        f"Backends: {work.precision} · {words.shape(work)} · link {words.link(series.link)}",
        tuple(headers),
        tuple(_cells(row, [first, *others], unit) for row in rows),
        (
            f"{ABOUT} Launch {setting.launch}, receive {setting.receive}.",
            *_apart(times),
            *([ROOFLINE] if any(time.roofline is not None for time in times) else []),
            f"Largest error against the oracle: {_errors(times)}.",
        ),
    )


def _cells(row: Backends, names: list[str], unit: Unit) -> tuple[str, ...]:
    by_name: dict[str, GemmTime] = {time.variant.experts: time for time in row.times}
    cells = [words.count(row.workload.tokens)]
    for index, name in enumerate(names):
        time = by_name.get(name)
        cells.append(unit.text(time.seconds if time else None))
        if index:
            cells.append(words.ratio(time.speedup[0] if time and time.speedup else None))
        cells.append(words.percent(time.roofline if time else None))
    return tuple(cells)


def _apart(times: Iterable[GemmTime]) -> list[str]:
    """How far passes are apart in a ratio; nothing to say of one pass."""
    apart = max(time.spread for time in times)
    return [f"The ratios of two passes differ by up to {words.percent(apart)}."] if apart else []


def _errors(times: Iterable[GemmTime]) -> str:
    largest: dict[str, float] = {}
    for time in times:
        largest[time.variant.experts] = max(time.relative_error, largest.get(time.variant.experts, 0.0))
    return ", ".join(f"{name} {error:.1e}" for name, error in largest.items())
