"""What has changed since a run was measured, if times depend on it: code, machine, software, settings. Torch-free."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from bench.deciding.facts import flat
from bench.errors import BenchError
from bench.results import Trial
from bench.running.messages import Ready
from moe_impl.options import Machine

FACTS = ("python", "cuda", "nccl", "driver", "gpu.power_limit_w")
"""Of environment.json, beside code and settings. Where either side does not know one, it is not compared."""
RECORD = "resumed_anyway"
"""Key of environment.json: what had changed when ``--resume --anyway`` went on, by time."""
WAY_ON = "start a new run with another --out, or add --anyway: environment.json then says what changed and when"
CODE_UNKNOWN = "--resume: the run does not say which code measured it (an older version's does not): not compared"


def changes(trials: Iterable[Trial], stored: Mapping[str, Any], now: Ready) -> list[str]:
    """Each change in one line.

    Args:
        trials: what the run holds.
        stored: its environment.json.
        now: what a probe found.
    """
    before, after = flat(stored), flat(now.environment)
    lines = []
    if code_known(before) and code_known(after) and before["bench.source"] != after["bench.source"]:
        lines.append(_line("code", _code(before), _code(after)))
    for machine in dict.fromkeys(trial.machine for trial in trials):
        for name in (spec.name for spec in fields(Machine)):
            if getattr(machine, name) != getattr(now.machine, name):
                lines.append(_line(f"machine.{name}", getattr(machine, name), getattr(now.machine, name)))
    for name in FACTS:
        if None not in (before.get(name), after.get(name)) and before[name] != after[name]:
            lines.append(_line(name, before[name], after[name]))
    if all(isinstance(known.get("settings"), Mapping) for known in (stored, now.environment)):
        names = dict.fromkeys(name for name in (*before, *after) if name.startswith("settings."))
        for name in names:
            if before.get(name) != after.get(name):
                lines.append(_line(name, before.get(name, "unset"), after.get(name, "unset")))
    return lines


def code_known(facts: Mapping[str, Any]) -> bool:
    """Whether these facts, by dotted name, tell the code: runs of older versions do not."""
    return facts.get("bench.source") is not None


def refuse(changed: list[str]) -> None:
    """Passes are averaged, so one code on one machine should measure them all.

    Raises:
        BenchError: anything changed: every change, and the way on.
    """
    if changed:
        raise BenchError(*(f"--resume: {line}" for line in changed), f"--resume: {WAY_ON}")


def recorded(stored: Mapping[str, Any], changed: list[str]) -> dict[str, Any]:
    """``stored``, with what has changed now."""
    before = stored.get(RECORD)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {**stored, RECORD: {**(before if isinstance(before, dict) else {}), now: "; ".join(changed)}}


def _line(name: str, before: object, now: object) -> str:
    return f"{name}: the run was measured with {before}, now it is {now}"


def _code(facts: Mapping[str, Any]) -> str:
    """``0.1.0, commit 69e585c with changes, source 1a2b3c4d5e6f7a8b``."""
    told = [str(facts.get("bench.version"))]
    if commit := facts.get("bench.checkout.commit"):
        told.append(f"commit {str(commit)[:7]}{' with changes' if facts.get('bench.checkout.dirty') else ''}")
    return ", ".join((*told, f"source {facts['bench.source']}"))
