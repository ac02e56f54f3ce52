"""Make Trials from known truths: stage seconds, a split and overlap model, noise. No GPU, no torch, no clock."""

import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bench.cases import Case
from bench.config.spec import CaseAxes, SweepConfig, VariantSpec
from bench.results import Check, Measurement, Memory, StageTimes, Status, Trial, to_record
from bench.settings import MeasureSettings
from moe_impl.links import PACED_PRESETS
from moe_impl.options import Link, Machine, Precision, Variant, Workload, default_experts
from moe_impl.overlap.makespan import makespan_s
from moe_impl.overlap.schedule import chain, for_variant
from moe_impl.shapes import PRESETS
from moe_impl.stages import Stage
from moe_impl.support import labels, limits

H100 = Machine("cuda", "NVIDIA H100 80GB HBM3", 80 * 2**30, 132, (9, 0), "2.13.0", "3.9.0")
CPU = Machine("cpu", "Synthetic CPU", 16 * 2**30, 0, None, "2.13.0")
PAIRS = 12


def workload(tokens: int = 1024, precision: Precision = "bf16", layers: int = 2) -> Workload:
    """A DeepSeek-V3 EP8 rank."""
    return Workload(PRESETS["deepseek-v3"], ep_size=8, layers=layers, tokens=tokens, precision=precision)


def variant(precision: Precision = "bf16", split_factor: int = 2) -> Variant:
    return Variant(experts=default_experts(precision), split_factor=split_factor)


def with_t1_and_t2s(*variants: Variant) -> tuple[Variant, ...]:
    return tuple(dict.fromkeys(v for one in variants for v in (one.unsplit(), one.split_serial(), one)))


@dataclass(frozen=True)
class Truth:
    """What a machine would do without noise.

    GEMMs read their weights once per micro-batch (``fixed_s``) and compute per token; comm follows the link.
    """

    fixed_s: float = 0.9e-3
    per_token_s: float = 0.7e-6
    dilation: float = 1.1
    """Of every stage while overlapped."""

    def op_s(self, work: Workload, link: Link, one: Variant) -> dict[str, list[list[float]]]:
        """stage -> [layer][micro-batch] -> seconds, running alone."""
        tokens = work.tokens / one.split_factor
        num_bytes = int(tokens * 5.25 * work.payload_row_bytes("combine"))
        shares = {Stage.GEMM1: 2 / 3, Stage.GEMM2: 1 / 3}
        weights = self.fixed_s * (1.0 if work.precision == "bf16" else 0.28)
        seconds = dict.fromkeys(Stage, 2e-6 + 5e-9 * tokens)
        seconds |= {stage: share * (weights + self.per_token_s * tokens) for stage, share in shares.items()}
        seconds |= {
            Stage.DISPATCH: link.seconds("dispatch", num_bytes),
            Stage.COMBINE: link.seconds("combine", num_bytes),
        }
        return {stage.value: [[seconds[stage]] * one.split_factor for _ in range(work.layers)] for stage in chain(work)}

    def span_s(self, work: Workload, link: Link, one: Variant) -> float:
        """One iteration."""
        op_s = self.op_s(work, link, one)
        schedule = for_variant(one, work)
        durations = [op_s[op.stage][op.layer][op.ubatch] for op in schedule.ops]
        return makespan_s(schedule, durations) * self.dilation if one.role == "T2o" else sum(durations)


@dataclass(frozen=True)
class Noise:
    """Relative spreads: of each sample, and of each variant in each process."""

    sample: float = 0.003
    process: float = 0.0002


@dataclass
class Builder:
    """Trials of some cases over some passes."""

    truth: Truth = field(default_factory=Truth)
    noise: Noise = field(default_factory=Noise)
    machine: Machine = H100
    passes: int = 5
    pairs: int = PAIRS
    instrumented: float = 1.02
    """How much slower the instrumented pass is."""
    seed: int = 1
    change: Callable[[Measurement, int, Workload], Measurement] = lambda m, pass_index, work: m

    def trials(self, cases: Iterable[Case]) -> list[Trial]:
        draw = random.Random(self.seed)
        cases = list(cases)
        return [self._trial(case, pass_index, draw) for pass_index in range(self.passes) for case in cases]

    def _trial(self, case: Case, pass_index: int, draw: random.Random) -> Trial:
        samples: dict[Variant, list[float]] = {v: [] for v in case.variants}
        places: dict[Variant, list[int]] = {v: [] for v in case.variants}
        bias = {v: draw.gauss(0, self.noise.process) for v in case.variants}
        place = 0
        for _ in range(self.pairs):
            for one in (*case.variants, *reversed(case.variants)):
                exact = self.truth.span_s(case.workload, case.link, one)
                samples[one].append(exact * math.exp(bias[one] + draw.gauss(0, self.noise.sample)))
                places[one].append(place)
                place += 1
        measurements = [self._measurement(case, one, samples[one], places[one]) for one in case.variants]
        return Trial(
            workload=case.workload,
            link=case.link,
            pass_index=pass_index,
            machine=self.machine,
            measurements=tuple(self.change(m, pass_index, case.workload) for m in measurements),
            timer="cuda_event" if self.machine.device == "cuda" else "host",
            started_at="2026-01-02T03:04:05Z",
            elapsed_s=1.0,
            overhead_s=0.5,
            spent_s={"oracle": 0.5, "measure": 0.5},
        )

    def _measurement(self, case: Case, one: Variant, samples: Sequence[float], places: Sequence[int]) -> Measurement:
        stretch = self.instrumented * (self.truth.dilation if one.role == "T2o" else 1)
        op_s = self.truth.op_s(case.workload, case.link, one)
        stretched = {stage: [[s * stretch for s in row] for row in layers] for stage, layers in op_s.items()}
        return Measurement(
            variant=one,
            status=Status.OK,
            check=Check(1e-3, 1e-2, 2.0, 10.0, True, True),
            samples_s=tuple(samples),
            places=tuple(places),
            rounds=tuple(0 for _ in samples),
            labels=labels(case.workload, case.link, one, self.machine),
            limits=limits(case.workload, one, self.machine),
            stages=StageTimes(self.truth.span_s(case.workload, case.link, one) * self.instrumented, stretched),
            memory=Memory(3 * 2**30, 2**30 // one.split_factor, 0) if self.machine.device == "cuda" else None,
        )


def cases(
    tokens: Sequence[int], precisions: Sequence[Precision] = ("bf16",), splits: Sequence[int] = (2,), layers: int = 2
) -> list[Case]:
    """One case a precision and token count on DeepEP's H800 link."""
    return [
        Case(
            workload(count, precision, layers),
            PACED_PRESETS["h800-nvlink-ep8"],
            with_t1_and_t2s(*(variant(precision, split) for split in splits)),
        )
        for precision in precisions
        for count in tokens
    ]


def failed(m: Measurement, status: Status = Status.ERROR, reason: str = "made up") -> Measurement:
    """The same variant, not timed."""
    return Measurement(m.variant, status, reason)


def rescaled(m: Measurement, factor: float) -> Measurement:
    return replace(m, samples_s=tuple(sample * factor for sample in m.samples_s))


def config_of(trials: Sequence[Trial]) -> SweepConfig:
    """A sweep file that asks for what is in ``trials``: its distinct values, its distinct variants."""

    def distinct(values: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(values))

    axes = {
        spec.name: distinct(getattr(trial if spec.name == "link" else trial.workload, spec.name) for trial in trials)
        for spec in fields(CaseAxes)
    }
    listed: dict[VariantSpec, None] = {}
    for trial in trials:
        usual = default_experts(trial.workload.precision)
        roles = {m.role for m in trial.measurements}
        for one in (m.variant for m in trial.measurements if m.role == ("T2o" if "T2o" in roles else m.role)):
            values = tuple((spec.name, (getattr(one, spec.name),)) for spec in fields(one))
            listed[VariantSpec(values[1:] if one.experts == usual else values)] = None
    return SweepConfig(
        case=CaseAxes(**axes),
        variants=tuple(listed),
        measure=MeasureSettings(passes=max((trial.pass_index for trial in trials), default=0) + 1),
        question="from how many tokens on does TBO pay?",
    )


@dataclass(frozen=True)
class StubRun:
    """What a report reads of a run folder."""

    stored: Sequence[Trial]
    path: Path = Path("runs/synthetic")

    def trials(self, *, times_only: bool = False) -> list[Trial]:
        return list(self.stored)

    def config(self) -> SweepConfig:
        return config_of(self.stored)

    def environment(self) -> dict[str, object]:
        return {"gpu": {"name": "NVIDIA H100 80GB HBM3", "driver": None}, "torch": "2.13.0"}


def write_run(folder: Path, trials: Iterable[Trial], config_text: str) -> Path:
    """A run folder on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(to_record(trial)) + "\n" for trial in trials))
    (folder / "config.resolved.yaml").write_text(config_text)
    (folder / "environment.json").write_text(json.dumps({"torch": "2.13.0"}))
    return folder
