"""A report as one JSON document, for scripts: every stored and derived number, SI units in the names."""

from dataclasses import asdict
from typing import Any

from bench.deciding.alone import Alone
from bench.deciding.backends import Backends
from bench.deciding.best_split import BestSplit
from bench.deciding.decompose import Decomposition
from bench.deciding.fits import Fits
from bench.deciding.off_against_off import OffAgainstOff
from bench.deciding.stats import Estimate
from bench.deciding.tuned import Tuned
from bench.identity import variant_id
from bench.profiling.shortfall import Shortfall
from bench.render import sentences
from bench.report_model import NotTimed, ReportModel, Row, Section, WhatIf

SCHEMA_VERSION = 1
# History: 1 = first.


def document(model: ReportModel) -> dict[str, Any]:
    """JSON-able; None = unknown."""
    return {
        "schema": SCHEMA_VERSION,
        "run": model.run,
        "question": model.question,
        "headline": sentences.headline(model),
        "performance_claim": not model.on_cpu,
        "machines": [asdict(machine) for machine in model.machines],
        "passes": model.passes,
        "measure": asdict(model.measure),
        "coverage": {**asdict(model.coverage), "complete": model.coverage.complete},
        "checks": asdict(model.checks),
        "comparisons": [_row(row) for section in model.sections for row in section.rows],
        "off_against_off": [_off_against_off(found) for found in model.off_against_off],
        "alone": [_alone(found) for found in model.alone],
        "break_evens": [_break_even(section) for section in model.sections],
        "best_splits": [_best_split(found) for found in model.best_splits],
        "tuned": [_tuned(found) for found in model.tuned],
        "fits": [_fits(found) for found in model.fits],
        "shortfalls": [_shortfall(found) for found in model.shortfalls],
        "backends": [_backends(found) for found in model.backends],
        "spent_s": {on.activity: on.total_s for on in model.spent},
        "noise_floor": asdict(model.noise),
        "failures": [_not_timed(entry) for entry in model.failures],
        "skips": [_not_timed(entry) for entry in model.skips],
        "environment": model.environment,
        "commands": list(model.commands),
    }


def _alone(found: Alone) -> dict[str, Any]:
    workload = {key: value for key, value in asdict(found.series.workload).items() if key != "tokens"}
    return {
        "workload": workload,
        "link": asdict(found.series.link),
        "variant": asdict(found.series.variant),
        "variant_id": variant_id(found.series.variant),
        "median_s": {str(tokens): seconds for tokens, seconds in found.times_s},
        "timers": list(found.timers),
        "labels": list(found.labels),
    }


def _interval(estimate: Estimate | None) -> dict[str, float | None]:
    """Speed-up and its ends; None without an estimate."""
    return {name: None if estimate is None else getattr(estimate, name) for name in ("speedup", "low", "high")}


def _off_against_off(found: OffAgainstOff) -> dict[str, Any]:
    estimate = found.estimate
    return {
        "workload": asdict(found.workload),
        "link": asdict(found.link),
        "variant": asdict(found.variant),
        "variant_id": variant_id(found.variant),
        **_interval(found.estimate),
        "passes": 0 if estimate is None else estimate.passes,
        "again_s": found.again_s,
        "verdict": found.verdict.value,
        "reasons": [reason.value for reason in found.reasons],
        "flags": list(found.flags),
    }


def _row(row: Row) -> dict[str, Any]:
    found = row.comparison
    return {
        "workload": asdict(found.workload),
        "link": asdict(found.link),
        "variant": asdict(found.variant),
        "variant_id": variant_id(found.variant),
        "baseline": asdict(found.baseline),
        "timers": list(found.timers),
        "off_s": found.baseline_s,
        "on_s": found.variant_s,
        "speedup": found.speedup,
        "low": found.low,
        "high": found.high,
        "confidence": found.confidence,
        "passes": found.passes,
        "verdict": found.verdict.value,
        "reasons": [reason.value for reason in found.reasons],
        "min_detectable": found.min_detectable,
        "labels": list(found.labels),
        "limits": list(found.limits),
        "flags": list(found.flags),
        "off_activations_bytes": row.off_activations_bytes,
        "on_activations_bytes": row.on_activations_bytes,
        "traffic": None if row.traffic is None else asdict(row.traffic),
        "off_rank_skew": row.off_rank_skew,
        "on_rank_skew": row.on_rank_skew,
        "t1_stages": [asdict(rate) for rate in row.stage_rates],
        "gpu": None if row.gpu is None else asdict(row.gpu),
        "step": None if row.step is None else asdict(row.step),
        "decomposition": None if row.decomposition is None else _decomposition(row.decomposition),
    }


def _decomposition(why: Decomposition) -> dict[str, Any]:
    return {
        **asdict(why),
        "dilation": dict(why.dilation),
        "penalty_s": why.penalty_s,
        "gain_s": why.gain_s,
        "net_s": why.net_s,
        "unsplit_bound_s": why.unsplit_bound_s,
        "efficiency": why.efficiency,
        "efficiency_sm": why.efficiency_sm,
    }


def _break_even(section: Section) -> dict[str, Any]:
    even = section.break_even
    workload = {key: value for key, value in asdict(even.series.workload).items() if key != "tokens"}
    return {
        "workload": workload,
        "link": asdict(even.series.link),
        "variant": asdict(even.series.variant),
        "kind": even.kind.value,
        "verdicts": {str(tokens): verdict.value for tokens, verdict in even.verdicts},
        "largest_not_faster": even.largest_not_faster,
        "smallest_faster": even.smallest_faster,
        "crossing_tokens": even.crossing,
        "crossing_between_tokens": even.crossing_between,
        "crossing_low_noise_only_tokens": even.crossing_low,
        "crossing_high_noise_only_tokens": even.crossing_high,
        "why": list(even.why),
        "depends_on_link": section.depends_on_link,
        "what_ifs": [_what_if(found) for found in section.what_ifs],
    }


def _what_if(found: WhatIf) -> dict[str, Any]:
    row = found.comparison
    return {
        "tokens": row.workload.tokens,
        "bandwidth_factor": found.factor,
        "verdict": row.verdict.value,
        "verdict_at_1": found.base.value,
        "speedup": row.speedup,
        "low": row.low,
        "high": row.high,
    }


def _tuned(found: Tuned) -> dict[str, Any]:
    return {
        "workload": asdict(found.workload),
        "link": asdict(found.link),
        "on": asdict(found.on),
        "on_variant_id": variant_id(found.on),
        "off": asdict(found.off),
        "off_variant_id": variant_id(found.off),
        "candidates": {"on": found.candidates_on, "off": found.candidates_off},
        "picked_in_passes": list(found.picked_in),
        "judged_in_passes": list(found.judged_in),
        **_interval(found.estimate),
        "verdict": found.verdict.value,
        "reasons": list(map(str, found.reasons)),
    }


def _best_split(found: BestSplit) -> dict[str, Any]:
    return {
        "workload": asdict(found.best.workload),
        "link": asdict(found.best.link),
        "variant": asdict(found.best.variant),
        "variant_id": variant_id(found.best.variant),
        "split_factor": found.best.variant.split_factor,
        "speedup": found.best.speedup,
        "low": found.best.low,
        "high": found.best.high,
        "next_split_factor": found.next.variant.split_factor,
        "told_apart": found.told_apart,
    }


def _fits(found: Fits) -> dict[str, Any]:
    workload = {key: value for key, value in asdict(found.series.workload).items() if key != "tokens"}
    return {
        "workload": workload,
        "link": asdict(found.series.link),
        "variant": asdict(found.series.variant),
        "off": asdict(found.off),
        "on": asdict(found.on),
        "largest_off_tokens": max(found.off.fits, default=None),
        "largest_on_tokens": max(found.on.fits, default=None),
    }


def _backends(found: Backends) -> dict[str, Any]:
    return {
        "workload": asdict(found.workload),
        "link": asdict(found.link),
        "reference_id": variant_id(found.reference),
        "gemms": [
            {**asdict(time), "spread": time.spread, "variant_id": variant_id(time.variant)} for time in found.times
        ],
    }


def _shortfall(found: Shortfall) -> dict[str, Any]:
    return {
        **asdict(found),
        "variant_id": variant_id(found.variant),
        "stages": dict(found.stages),
        "gap_s": found.gap_s,
        "remainder_s": found.remainder_s,
        "explained": found.explained,
        "ideal_share": found.ideal_share,
        "gap_share": found.gap_share,
        "dilation_share": found.dilation_share,
        "stage_shares": dict(found.stage_shares),
        "idle_share": found.idle_share,
        "starved_share": found.starved_share,
        "remainder_share": found.remainder_share,
    }


def _not_timed(entry: NotTimed) -> dict[str, Any]:
    return {**asdict(entry), "status": entry.status.value, "passes": list(entry.passes)}
