"""Best setting against best setting: a pick is judged on passes that it was not picked on. Simulated."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import exp, log, sqrt
from statistics import fmean, stdev

import numpy as np
import pytest
import synthetic
from noises import Draw, Logs, hiccups, power_states, wander, white
from scipy.stats import binom
from synthetic import Builder, Noise, Truth

from bench import report
from bench.cases import Case
from bench.deciding import join
from bench.deciding.compare import CLAIMS, Reason, Verdict, compare_off_on
from bench.deciding.tuned import FEW_TO_JUDGE, Tuned, halves, tuned
from bench.render import document, worth
from bench.results import Measurement, Status, Trial
from bench.settings import MeasureSettings
from moe_impl.links import PACED_PRESETS
from moe_impl.options import Link, Variant, Workload

SEED = int(os.environ.get("BENCH_SEED", "20260102"))
MEASURE = MeasureSettings()
LINK = PACED_PRESETS["h800-nvlink-ep8"]
SETTINGS = tuple(
    Variant("torch", engine=engine, order=order, split_factor=split)
    for engine in ("streams", "threads")
    for order in ("yield_after", "yield_before")
    for split in (2, 3)
)
RUNS = 200
PASSES = 10
BLOCKS = 6
"""Mirrored blocks of a pass."""
MOST_FALSE = int(binom.ppf(0.999, RUNS, 0.01))


@dataclass(frozen=True)
class Flat(Truth):
    """Every variant takes as long, but those that ``faster`` names."""

    faster: dict[Variant, float] = field(default_factory=dict)

    def span_s(self, work: Workload, link: Link, one: Variant) -> float:
        return 1e-3 / self.faster.get(one, 1.0)


def trials(
    faster: dict[Variant, float] | None = None, seed: int = SEED, passes: int = PASSES, **settings: object
) -> list[Trial]:
    case = Case(synthetic.workload(layers=1), LINK, synthetic.with_t1_and_t2s(*SETTINGS))
    noise = Noise(sample=0.003, process=0.005)
    return Builder(Flat(faster=faster or {}), noise, passes=passes, pairs=2, seed=seed, **settings).trials([case])  # type: ignore[arg-type]


NUM_VARIANTS = len(trials(passes=1)[0].measurements)


def of(stored: list[Trial]) -> tuple[Tuned, ...]:
    return tuned(join.by_case(stored), MEASURE)


def test_every_other_pass_picks() -> None:
    assert halves([4, 0, 1, 2, 3]) == ((0, 2, 4), (1, 3))


def each_variant_its_own(draw: Draw, shape: tuple[int, ...]) -> Logs:
    """Each process moves any variant against any other by 0.5 %: memory layout, which SMs."""
    own = np.tile(draw.normal(0, 0.005 / sqrt(2), (*shape[:-1], NUM_VARIANTS)), 2)
    own[..., NUM_VARIANTS:] = own[..., :NUM_VARIANTS][..., ::-1]
    return white(draw, shape) + np.tile(own, BLOCKS)


def equal_runs(noise: Callable[[Draw, tuple[int, ...]], Logs], passes: int) -> Iterator[list[Trial]]:
    """Runs of variants that all take 1 ms, in mirrored blocks, with that noise."""
    places = [
        np.arange(BLOCKS)[:, None] * 2 * NUM_VARIANTS + [v, 2 * NUM_VARIANTS - 1 - v] for v in range(NUM_VARIANTS)
    ]
    drawn = noise(np.random.default_rng(SEED), (RUNS, passes, BLOCKS * 2 * NUM_VARIANTS))
    template = trials(passes=passes)
    for run in 1e-3 * np.exp(drawn):
        yield [
            replace(
                trial,
                measurements=tuple(
                    replace(m, samples_s=tuple(samples[at].ravel().tolist()))
                    for m, at in zip(trial.measurements, places, strict=True)
                ),
            )
            for trial, samples in zip(template, run, strict=True)
        ]


@pytest.mark.parametrize("passes", [6, 10])
@pytest.mark.parametrize("noise", [white, wander, power_states, each_variant_its_own, hiccups])
def test_the_best_of_equal_settings_is_seldom_called_faster_or_slower(
    noise: Callable[[Draw, tuple[int, ...]], Logs], passes: int
) -> None:
    rows = [row for stored in equal_runs(noise, passes) for row in of(stored)]
    assert len(rows) == RUNS
    assert sum(row.verdict in CLAIMS for row in rows) <= MOST_FALSE


def test_judged_on_the_passes_that_picked_it_the_best_would_gain_what_nothing_gained() -> None:
    judged, picked = [], []
    for stored in equal_runs(each_variant_its_own, PASSES):
        (row,) = of(stored)
        assert row.estimate is not None
        judged.append(log(row.estimate.speedup))
        picked.append(max(log(other.speedup or 0) for other in compare_off_on(stored, MEASURE)))
    error = 4 * stdev(judged) / sqrt(RUNS)
    assert abs(fmean(judged)) < error < fmean(picked)


def test_the_better_setting_is_picked_and_its_gain_found() -> None:
    best = SETTINGS[5]
    (row,) = of(trials({best: 1.03, SETTINGS[2]: 1.01}))
    assert (row.on, row.off, row.verdict) == (best, best.unsplit(), Verdict.FASTER)
    assert row.estimate is not None
    assert row.estimate.speedup == pytest.approx(1.03, abs=0.01)
    assert (row.candidates_on, row.candidates_off) == (len(SETTINGS), 1)
    assert (row.picked_in, row.judged_in) == ((0, 2, 4, 6, 8), (1, 3, 5, 7, 9))


def test_one_claim_among_many_cases_must_survive_their_false_discovery_rate() -> None:
    best = SETTINGS[5]
    (sure,) = of(trials({best: 1.03}, seed=1))
    assert sure.estimate is not None
    just_enough = 1.03 / sure.estimate.speedup * exp(1.1 * (sure.estimate.half_width or 0) + 0.002)
    one = trials({best: just_enough}, seed=1)
    (alone,) = of(one)
    assert (alone.on, alone.verdict) == (best, Verdict.FASTER)
    others = [
        replace(trial, workload=replace(trial.workload, tokens=4096 + n))
        for n in range(1, 12)
        for trial in trials(seed=1 + n)
    ]
    found, *rest = of([*one, *others])
    assert (found.verdict, found.reasons) == (Verdict.UNDECIDED, (Reason.FALSE_DISCOVERY,))
    assert len(rest) == 11


def test_a_setting_that_failed_once_takes_no_part() -> None:
    best = SETTINGS[5]

    def fail(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return synthetic.failed(m, Status.HANG) if m.variant == best and pass_index == 3 else m

    (row,) = of(trials({best: 1.10, SETTINGS[2]: 1.03}, change=fail))
    assert row.on == SETTINGS[2]


def test_off_picks_too() -> None:
    exact = replace(SETTINGS[0], receive="exact", order="yield_before")
    case = Case(synthetic.workload(layers=1), LINK, synthetic.with_t1_and_t2s(SETTINGS[0], exact))
    faster = {exact.unsplit(): 1.05, SETTINGS[0]: 1.05}
    stored = Builder(Flat(faster=faster), Noise(0.001, 0.0), passes=PASSES, pairs=2).trials([case])
    (row,) = of(stored)
    assert (row.on, row.off, row.verdict) == (SETTINGS[0], exact.unsplit(), Verdict.SAME)


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_too_few_passes_decide_nothing_and_the_report_says_so(passes: int) -> None:
    stored = trials({SETTINGS[5]: 1.5}, passes=passes)
    (row,) = of(stored)
    assert (row.verdict, row.reasons[-1], row.estimate) == (Verdict.UNDECIDED, FEW_TO_JUDGE, None)
    said = worth.tuned(report.build(synthetic.StubRun(stored)))
    assert said == [f"Tuned: UNDECIDED at 1024: {'; '.join(row.reasons)}."]


def test_six_passes_are_enough() -> None:
    (row,) = of(trials({SETTINGS[5]: 1.2}, passes=6))
    assert (row.verdict, row.judged_in) == (Verdict.FASTER, (1, 3, 5))


def test_a_cpu_decides_nothing() -> None:
    (row,) = of(trials({SETTINGS[5]: 1.5}, machine=synthetic.CPU))
    assert (row.verdict, row.reasons) == (Verdict.UNDECIDED, (Reason.CPU,))


def test_where_there_is_nothing_to_pick_there_is_no_row() -> None:
    one = Case(synthetic.workload(layers=1), LINK, synthetic.with_t1_and_t2s(SETTINGS[0]))
    assert of(Builder(passes=PASSES, pairs=2).trials([one])) == ()


def test_the_report_says_who_was_picked_where_and_judged_where() -> None:
    best = SETTINGS[5]
    stored = trials({best: 1.03})
    model = report.build(synthetic.StubRun(stored))
    (said,) = worth.tuned(model)
    assert f"{best.label} against off torch at 1024" in said
    assert said.endswith("Picked of 8 on and 1 off in passes 1, 3, 5, 7 and 9, judged in 2, 4, 6, 8 and 10.")
    (told,) = json.loads(json.dumps(document.document(model)))["tuned"]
    assert told["verdict"] == "FASTER"
    assert told["judged_in_passes"] == [1, 3, 5, 7, 9]
