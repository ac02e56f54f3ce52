"""What the profiled process does, by a run that only notes what is asked of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import torch

from bench.profiling import target
from bench.timeline.graphs import AS_ISSUED
from moe_impl.annotate import DOMAIN
from moe_impl.variant_run import VariantRun


@dataclass
class Noting:
    """Stands for a VariantRun."""

    captured: bool
    label: str = "streams x2 torch"
    asked: list[str] = field(default_factory=list)

    def issue(self) -> None:
        self.asked.append("issue")
        torch.ones(1).add_(1)

    def under(self, around: Any) -> Callable[[], None]:
        self.asked.append("under")
        return lambda: self.asked.append("call")


def iterated(run: Noting, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the ranges that Kineto saw, in order."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: run.asked.append("synchronize"))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        target.iterate(cast(VariantRun, run), 2)
    seen = [event for event in profiler.events() or () if event.name.startswith(f"{DOMAIN}/")]
    return [event.name for event in sorted(seen, key=lambda event: event.time_range.start)]


def test_a_captured_run_is_issued_once_in_its_range_before_it_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Noting(captured=True)
    names = iterated(run, monkeypatch)
    assert run.asked == ["issue", "under", "call", "call", "synchronize"]
    iterations = [f"{DOMAIN}/iteration {index} {run.label}" for index in (0, 1)]
    assert names == [f"{DOMAIN}/{AS_ISSUED}", *iterations]


def test_a_run_that_issues_its_ops_is_not_issued_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Noting(captured=False)
    names = iterated(run, monkeypatch)
    assert run.asked == ["under", "call", "call", "synchronize"]
    assert f"{DOMAIN}/{AS_ISSUED}" not in names
