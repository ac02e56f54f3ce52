"""Say of each piece of work which stage, micro-batch, layer and iteration it belongs to, and which lane.

By the range around its launch, never by a kernel's name, where the program is ours. Rules for other people's traces may
name streams and kernels too; what no rule knows stays unknown.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from bench.errors import BenchError
from bench.timeline.model import UNKNOWN, Column, Names, Profile
from bench.timeline.nesting import Nesting, nest
from moe_impl.stages import Stage, lane_of

LaneName = Literal["compute", "comm"]
COMPUTE, COMM = 0, 1
LANES: dict[LaneName, int] = {"compute": COMPUTE, "comm": COMM}
GROUPS = ("iteration", "layer", "ubatch")
OF_CAPTURE = ("stage", "layer", "ubatch")
"""What the ranges around a captured call say of all replays; the iteration is that of the launch."""
OURS = (
    r"^moe_tbo/iteration (?P<iteration>\d+) (?P<run>.+)$",
    r"^moe_tbo/(?P<stage>\w+) layer (?P<layer>\d+) ubatch (?P<ubatch>\d+)$",
)
"""What moe_impl.annotate writes."""


@dataclass(frozen=True)
class KernelRule:
    """Work by its own name: for traces without annotations."""

    match: re.Pattern[str]
    lane: LaneName
    stage: str | None = None


@dataclass(frozen=True)
class Rules:
    """How to read a trace."""

    ranges: tuple[re.Pattern[str], ...] = tuple(map(re.compile, OURS))
    """Against ``domain/name``; the groups iteration, run (what is iterated), layer, ubatch and stage say what it is."""
    stages: dict[str, LaneName] = field(default_factory=lambda: {str(stage): lane_of(stage) for stage in Stage})
    """Stage -> its lane."""
    streams: dict[int, LaneName] = field(default_factory=dict)
    kernels: tuple[KernelRule, ...] = ()


@dataclass(eq=False)
class Attributed:
    """A profile and what its work is; columns are of the work's length."""

    profile: Profile
    nesting: Nesting
    stage: Column
    """Number of the stage's name in ``stage_names``."""
    stage_names: Names
    lane: Column
    """COMPUTE, COMM or UNKNOWN."""
    run: Column
    """Number of the name in ``run_names`` of what was iterated: a profile may hold several."""
    run_names: Names
    iteration: Column
    layer: Column
    ubatch: Column

    def of_run(self, number: int) -> "Attributed":
        """The work of one run alone."""
        mine = np.flatnonzero(self.run == number)
        profile = replace(self.profile, work=self.profile.work.take(mine))
        chosen = {name: getattr(self, name)[mine] for name in ("stage", "lane", "run", "iteration", "layer", "ubatch")}
        nesting = replace(self.nesting, inner=self.nesting.inner[mine], captured=self.nesting.captured[mine])
        return replace(self, profile=profile, nesting=nesting, **chosen)


def attribute(profile: Profile, rules: Rules | None = None) -> Attributed:
    """Apply the rules; ranges go before streams, streams before kernels' names."""
    rules = rules or Rules()
    nesting = nest(profile.ranges, profile.work)
    stage_names, run_names = Names(), Names()
    of_range = _ranges(profile, nesting, rules, {"stage": stage_names, "run": run_names})
    found = {key: _said(values, nesting.inner) for key, values in of_range.items()}
    for key in OF_CAPTURE:
        found[key] = np.where(nesting.captured != UNKNOWN, _said(of_range[key], nesting.captured), found[key])
    stage, lane = found["stage"], np.full(len(nesting.inner), UNKNOWN, dtype=np.int64)
    for number, name in enumerate(stage_names.texts):
        if name in rules.stages:
            lane[stage == number] = LANES[rules.stages[name]]
    for stream, lane_name in rules.streams.items():
        lane[(profile.work.stream == stream) & (lane == UNKNOWN)] = LANES[lane_name]
    for number, kernel in enumerate(profile.names.texts):
        for rule in rules.kernels:
            if rule.match.search(kernel):
                mine = (profile.work.name == number) & (lane == UNKNOWN)
                lane[mine] = LANES[rule.lane]
                if rule.stage is not None:
                    stage[mine & (stage == UNKNOWN)] = stage_names.number(rule.stage)
                break
    return Attributed(
        profile=profile,
        nesting=nesting,
        stage=stage,
        stage_names=stage_names,
        lane=lane,
        run=found["run"],
        run_names=run_names,
        iteration=found["iteration"],
        layer=found["layer"],
        ubatch=found["ubatch"],
    )


def _said(values: Column, innermost: Column) -> Column:
    """For each piece of work what the range around it says; UNKNOWN outside of all."""
    if not len(values):
        return innermost.copy()
    return np.where(innermost != UNKNOWN, values[np.maximum(innermost, 0)], UNKNOWN)


def _ranges(profile: Profile, nesting: Nesting, rules: Rules, named: dict[str, Names]) -> dict[str, Column]:
    """What each range says, or the range around it where it says nothing."""
    ranges, names = profile.ranges, profile.names
    found = {key: np.full(len(ranges), UNKNOWN, dtype=np.int64) for key in (*named, *GROUPS)}
    read: dict[tuple[int, int], dict[str, int]] = {}
    order = np.argsort(nesting.depth, kind="stable")  # a range after the one around it
    for index, domain, name, parent in zip(
        order.tolist(),
        ranges.domain[order].tolist(),
        ranges.name[order].tolist(),
        nesting.parent[order].tolist(),
        strict=True,
    ):
        if (domain, name) not in read:
            text = names.text(name) if domain == UNKNOWN else f"{names.text(domain)}/{names.text(name)}"
            read[domain, name] = _read(text, rules, named)
        said = read[domain, name]
        for key, column in found.items():
            if key in said:
                column[index] = said[key]
            elif parent != UNKNOWN:
                column[index] = column[parent]
    return found


def _read(text: str, rules: Rules, named: dict[str, Names]) -> dict[str, int]:
    for pattern in rules.ranges:
        if matched := pattern.search(text):
            groups = {key: value for key, value in matched.groupdict().items() if value is not None}
            said = {key: _counted(text, key, groups[key]) for key in GROUPS if key in groups}
            return said | {key: names.number(groups[key]) for key, names in named.items() if key in groups}
    return {}


def _counted(text: str, group: str, found: str) -> int:
    """Raises BenchError where a pattern took for a number what is none."""
    if found.isascii() and found.isdigit() and len(found) < 19:
        return int(found)
    raise BenchError(f"range {text!r}: {group} {found!r}, expected a whole number; let the rule's pattern say so")
