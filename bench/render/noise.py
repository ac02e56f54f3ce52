"""Sentences on a run's noise: its floor, and what equal runs of it differ by (A/A). Text from the model."""

from collections.abc import Iterable

from bench.deciding.compare import CLAIMS, Verdict
from bench.deciding.join import Series, series_of
from bench.deciding.off_against_off import OffAgainstOff
from bench.render import words
from bench.report_model import ReportModel


def floor(model: ReportModel) -> list[str]:
    """The noise floor and what it lets one see; none where nothing was compared."""
    found = model.noise
    if found.within_sd is None and found.between_sd is None:
        return []
    of = "medians" if model.sections else "off against off, medians"
    return [
        f"Noise floor ({of}): paired ratios {words.percent(found.within_sd)} within a pass, "
        f"pass means {words.percent(found.between_sd)} between passes. Minimum detectable effect: "
        f"{words.percent(found.min_detectable)}, at worst {words.percent(found.min_detectable_worst)}."
    ]


def off_against_off(model: ReportModel) -> list[str]:
    """``A/A, off against off: SAME at 128 and 512; 0.999x to 1.001x.``: one line a series, none where nobody asked, or
    where the tables of a run without overlapped variants tell it."""
    if model.alone:
        return []
    groups: dict[Series, list[OffAgainstOff]] = {}
    for found in model.off_against_off:
        groups.setdefault(series_of(found.workload, found.link, found.variant), []).append(found)
    return [_off_against_off(series, found, len(groups) > 1) for series, found in groups.items()]


def _off_against_off(series: Series, found: list[OffAgainstOff], named: bool) -> str:
    measured = [f.workload.tokens for f in found]
    told = [(verdict, [f.workload.tokens for f in found if f.verdict is verdict]) for verdict in Verdict]
    verdicts = ", ".join(f"{verdict} at {words.counts_of(tokens, measured)}" for verdict, tokens in told if tokens)
    speedups = [f.estimate.speedup for f in found if f.estimate is not None]
    ends = dict.fromkeys(f"{end:.3f}x" for end in (min(speedups), max(speedups))) if speedups else (words.UNKNOWN,)
    alarm = "".join(f" {line}" for line in false_alarm(found))
    why = dict.fromkeys(reason for f in found for reason in f.reasons)
    reasons = f" ({'; '.join(why)})" if why else ""
    name = f" ({words.series(series)})" if named else ""
    return f"A/A, off against off{name}: {verdicts}{reasons}; {' to '.join(ends)}.{alarm}"


def false_alarm(found: Iterable[OffAgainstOff]) -> list[str]:
    """What a difference between equal runs says of all others; none without one."""
    false = any(one.verdict in CLAIMS for one in found)
    return ["FASTER or SLOWER where nothing was changed: trust no verdict of that size in this run."] if false else []
