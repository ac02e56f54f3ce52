"""Run against run as one JSON document, for scripts: every number, SI units in the names."""

from dataclasses import asdict
from typing import Any

from bench.against import Against
from bench.deciding.across import Place
from bench.deciding.changes import Change, NotCompared, Times
from bench.deciding.compare import Comparison
from bench.deciding.welch import Difference
from bench.identity import case_id, variant_id
from bench.render import against_sentences

SCHEMA_VERSION = 1
# History: 1 = first.


def document(model: Against) -> dict[str, Any]:
    """JSON-able; None = unknown."""
    found = model.between
    return {
        "schema": SCHEMA_VERSION,
        "base": str(model.base),
        "new": str(model.new),
        "across": model.across,
        "headline": against_sentences.headline(model),
        "performance_claim": not model.on_cpu,
        "gate": None if model.gate is None else _gate(model),
        "measure": asdict(model.measure),
        "machines": [asdict(machine) for machine in model.machines],
        "changes": [_change(model, row) for section in model.sections for row in section.rows],
        "not_comparable": [_not_compared(entry) for entry in found.not_compared],
        "only_in_new": [_place(place) for place in found.only_in_new],
        "turned_off_in_both": [_place(place) for place in found.turned_off],
        "unlike": [asdict(fact) for fact in model.unlike],
        "recorded_differently": [asdict(fact) for fact in model.environment],
    }


def _gate(model: Against) -> dict[str, Any]:
    assert model.gate is not None
    outcome = against_sentences.OUTCOMES[model.gate]
    return {"exit_code": int(model.gate), "outcome": outcome, "absolute": model.absolute}


def _change(model: Against, row: Change) -> dict[str, Any]:
    return {
        "base": _side(row.base),
        "new": _side(row.new),
        "change": _difference(row.difference),
        "verdict": row.verdict.value,
        "reasons": [reason.value for reason in row.reasons],
        "other_work": [asdict(work) for work in row.other_work],
        "times": {time.role: _times(time) for time in row.times},
        "doubts": [against_sentences.differing(fact) for fact in model.unlike],
        "labels": list(dict.fromkeys((*row.base.labels, *row.new.labels))),
        "limits": list(dict.fromkeys((*row.base.limits, *row.new.limits))),
    }


def _side(row: Comparison) -> dict[str, Any]:
    return {
        **_place(Place(row.workload, row.link, row.variant)),
        "speedup": row.speedup,
        "low": row.low,
        "high": row.high,
        "passes": row.passes,
        "timers": list(row.timers),
        "flags": list(row.flags),
    }


def _place(place: Place) -> dict[str, Any]:
    return {
        "case_id": case_id(place.workload, place.link),
        "variant_id": variant_id(place.variant),
        "workload": asdict(place.workload),
        "link": asdict(place.link),
        "variant": asdict(place.variant),
    }


def _times(time: Times) -> dict[str, Any]:
    return {
        "base_s": time.base_s,
        "new_s": time.new_s,
        "new_over_base": _difference(time.difference),
        "verdict": time.verdict.value,
        "reasons": [reason.value for reason in time.reasons],
    }


def _difference(found: Difference | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "ratio": found.ratio,
        "low": found.low,
        "high": found.high,
        "confidence": found.confidence,
        "passes": list(found.passes),
        "p_value": found.p_value,
        "between_sd": found.between_sd,
        "min_detectable": found.min_detectable,
    }


def _not_compared(entry: NotCompared) -> dict[str, Any]:
    return {
        **_place(entry.place),
        "value": entry.value,
        "role": entry.role,
        "status": None if entry.status is None else entry.status.value,
        "reason": entry.reason,
        "passes": list(entry.passes),
    }
