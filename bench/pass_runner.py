"""One case in one pass: build, check, time, stamp the stages. The order of these is the method."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import median

import torch
from torch import Tensor

from bench import correctness, telemetry
from bench.cases import Case
from bench.choosing_experts import Means, choose
from bench.identity import variant_id
from bench.measure import l2, retention
from bench.measure.device_span import device_works
from bench.measure.jitter import captured_spread, delaying, schedule_spread
from bench.measure.protocol import Samples, measure
from bench.measure.repeat import alone_until_steady, disagreement
from bench.measure.stages import PERTURBED_BEYOND, stage_times
from bench.pass_context import CaseFailureError, PassContext
from bench.results import PERTURBED, ExpertsChoice, Measurement, Status, Trial
from bench.running.messages import JobCase, Phase, Step
from bench.spent import TIMING, Spent
from bench.targets import Target
from bench.telemetry import GpuState
from moe_impl import support
from moe_impl.options import Variant
from moe_impl.variant_run import VariantRun

COLD = "L2 flushed before every sample"


@dataclass
class _Checked:
    """A variant that agrees with the oracle, and what later runs of it must equal."""

    run: VariantRun
    final_TH: Tensor
    """The last layer's next x."""
    first_layer_TH: Tensor
    """The first layer's output, whose input alone is the same for every variant; with attention what that made of it,
    on which the rest is judged by the oracle."""
    last_timed_TH: Tensor | None = None


@dataclass
class _Again:
    """A T1 that is run a second time, as if it were another variant."""

    variant_id: str
    run: VariantRun
    measurement: Measurement
    last_timed_TH: Tensor | None = None


@dataclass
class CaseRun:
    """Runs one case; ``trial`` is its only door."""

    context: PassContext
    case: Case
    outcome: dict[str, Measurement]
    """By variant id; settled ones (skipped, failed before) from the start."""
    phase: Phase = "build"
    current: str | None = None
    checked: dict[str, _Checked] = field(default_factory=dict)
    off_again: dict[str, _Again] = field(default_factory=dict)
    """By another name than its T1's id."""
    experts_choice: ExpertsChoice | None = None
    """An earlier pass's, until this one has looked."""
    ruled_out: Mapping[str, str] = field(default_factory=dict)
    """What ``experts: auto`` may not become, and why."""
    telemetry: list[GpuState] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)

    @classmethod
    def of(cls, context: PassContext, job_case: JobCase) -> "CaseRun":
        settled = {m.variant_id: m for m in job_case.settled}
        choice, ruled_out = job_case.experts_choice, job_case.ruled_out
        return cls(context, job_case.case, settled, experts_choice=choice, ruled_out=ruled_out)

    def trial(self) -> Trial:
        """Run everything that is not settled.

        Raises:
            CaseFailureError: with the phase and the variant under way.
        """
        started_at, started_s = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
        try:
            self._begin("build")
            target = self.context.targets.build(self.case)
            self._begin("self-check")
            target.check_link(self.context.timer.device_time_s)
            self._choose_experts(target)
            for index, variant in enumerate(self.case.variants):
                if variant_id(variant) not in self.outcome:
                    self._begin("check", variant)
                    self._check(target, variant, self.context.progress.of(index))
                    if self.context.settings.aa and variant.role == "T1":
                        self._build_again(target, variant, self.context.progress.of(index))
            self._measure()
            self._repeat_if_doubtful()
            for variant in self.case.variants:
                if variant_id(variant) in self.checked:
                    self._begin("stages", variant)
                    self._stamp(target, variant)
            traffic = target.traffic(self.context.peers)
            self._cross_check()
            self.context.peers.align()  # a rank that fails must find the others in the same case
        except Exception as error:  # whatever it is, the supervisor must learn where it happened
            raise CaseFailureError(self.phase, self.current) from error
        elapsed_s, spent_s = time.perf_counter() - started_s, self.spent.so_far()
        return Trial(
            workload=self.case.workload,
            link=self.case.link,
            pass_index=self.context.pass_index,
            machine=self.context.machine,
            measurements=tuple(self.outcome[variant_id(variant)] for variant in self.case.variants),
            timer=self.context.timer.name,
            started_at=started_at,
            elapsed_s=elapsed_s,
            overhead_s=elapsed_s - sum(spent_s.get(activity, 0.0) for activity in TIMING),
            spent_s=spent_s,
            traffic=traffic,
            off_again=tuple(again.measurement for again in self.off_again.values()),
            telemetry=tuple(self.telemetry),
            experts_choice=self.experts_choice,
        )

    def _begin(self, phase: Phase, variant: Variant | None = None) -> None:
        self._announce(phase, None if variant is None else variant_id(variant))
        self.context.progress.clear()

    def _announce(self, phase: Phase, current: str | None, detail: str = "") -> None:
        self.phase, self.current = phase, current
        self.spent.on("first run" if phase == "check" else phase)
        self.context.tell(Step(self.case.case_id, phase, current, detail))

    def _choose_experts(self, target: Target) -> None:
        """One backend for every variant of the case that says ``experts: auto``, in all passes."""
        asking = [v for v in self.case.variants if v.experts == "auto" and variant_id(v) not in self.outcome]
        if not asking:
            self.experts_choice = None
            return
        context = self.context
        self._begin("choose experts")
        means = Means(
            context.machine,
            context.timer,
            context.peers,
            context.progress.of(self.case.variants.index(asking[0])),
            self._flush() or no_flush,
            lambda name: self._announce("choose experts", None, name),
            self.ruled_out,
        )
        self.experts_choice = choose(target, asking, means, self.experts_choice)

    def _check(self, target: Target, variant: Variant, progress: Callable[[int], None]) -> None:
        """Against the oracle on the run's own inputs, then against the variants it must agree with; on all ranks."""
        peers = self.context.peers
        run = target.run(variant, progress)
        target.poison(variant)
        final_TH, traces = run.traced()
        this = _Checked(run, final_TH, traces[0].y_TH)
        unsplit = self.checked.get(variant_id(variant.unsplit()))
        same = None if unsplit is None else torch.equal(final_TH, unsplit.final_TH)
        self.spent.on("oracle")
        check = correctness.against_oracle(traces, target.oracle, self.case.workload.precision, same)
        wrong = None if check.passed else correctness.said_wrong(check)
        wrong = wrong or correctness.broken_chain(
            [correctness.Link(t.before_TH, t.x_TH, target.attended(layer, t), t.next_TH, target.next_input(t))
             for layer, t in enumerate(traces)]
        )  # fmt: skip
        wrong = peers.complaint(wrong or self._disagreement(target, variant, this, unsplit))
        check = correctness.of_all_ranks(peers.gather(check))
        spread = None
        if not wrong and variant.role == "T2o":
            self.spent.on("random delays")
            draw = random.Random(self.context.pass_index * peers.size + peers.rank)
            if run.captured:
                spread = captured_spread(run, final_TH, draw)
            else:
                spread = schedule_spread(target.run(variant, delaying(progress, draw)), final_TH)
            spread = replace(spread, largest_difference=max(peers.gather(spread.largest_difference)))
            if target.deterministic(variant) and spread.largest_difference:
                wrong = f"its output changes by {spread.largest_difference:.1e} with the timing of its ops: a race?"
        labels = support.labels(self.case.workload, self.case.link, variant, self.context.machine)
        labels += (COLD,) if self.context.flushes else ()
        if variant.experts == "auto" and self.experts_choice is not None:
            labels += (f"experts auto: {self.experts_choice.experts}",)
        limits = support.limits(self.case.workload, variant, self.context.machine)
        status = Status.INCORRECT if wrong else Status.OK
        ran = run.schedule.num_ubatches
        self.outcome[variant_id(variant)] = Measurement(
            variant,
            status,
            wrong,
            check,
            labels=labels,
            limits=limits,
            effective_split_factor=None if ran == variant.split_factor else ran,
            spread=spread,
        )
        if not wrong:
            self.spent.on("first run")  # a graph is captured
            run.ready()
            self.checked[variant_id(variant)] = this

    def _build_again(self, target: Target, variant: Variant, progress: Callable[[int], None]) -> None:
        """A second run of a T1 that passed its check: what it was checked for must come out again."""
        key = variant_id(variant)
        if key in self.checked:
            self.spent.on("first run")
            first = self.outcome[key]
            again = Measurement(variant, Status.OK, labels=first.labels, limits=first.limits)
            run = target.run(variant, progress)
            run.ready()
            self.off_again[f"{key} again"] = _Again(key, run, again)

    def _disagreement(self, target: Target, variant: Variant, this: _Checked, unsplit: _Checked | None) -> str | None:
        """What a backend's own promises say about two runs of the same workload."""
        serial = self.checked.get(variant_id(variant.split_serial()))
        if serial and target.deterministic(variant) and not torch.equal(this.final_TH, serial.final_TH):
            return "differs from the split serial run, bit for bit: a missing dependency?"
        if unsplit is None:
            return None
        if target.batch_invariant(variant):
            return None if torch.equal(this.final_TH, unsplit.final_TH) else "differs from the unsplit run, bit for bit"
        if self.case.workload.attention is not None:  # its rounding hides in y what a backend may change by
            return None
        precision = self.case.workload.precision
        errors = correctness.errors(this.first_layer_TH, unsplit.first_layer_TH, precision)
        if errors.within(correctness.AGREEMENT[precision]):
            return None
        return f"differs from the unsplit run by {errors.relative:.1e} in the first layer"

    def _measure(self) -> None:
        """Time the checked variants by turns; the last timed output must be the checked one."""
        if not self.checked:
            return
        self.spent.on("warm-up")

        def keeping(this: _Checked | _Again) -> Callable[[], None]:
            def call() -> None:
                this.last_timed_TH = this.run()

            return call

        def announce(detail: str, current: str | None) -> None:
            known = self.off_again[current].variant_id if current in self.off_again else current
            self._announce("warm-up" if detail == "warm-up" else "measure", known, detail)

        def watch() -> None:
            state = context.gpu_now()
            self.telemetry += [] if state is None else [state]

        context, peers = self.context, self.context.peers
        flush = self._flush()
        warm = None
        if flush is not None:
            warm = peers.complaint(l2.unproved(flush, context.timer.device_time_s, context.device))
        calls = {key: keeping(this) for key, this in (self.checked | self.off_again).items()}
        samples = measure(
            calls,
            context.timer,
            context.settings,
            announce,
            context.pass_index,
            peers,
            self._baselines(),
            watch,
            flush or no_flush,
        )
        slowed = telemetry.slowed(peers.gather(self.telemetry))
        for samples_of_one in samples.values():
            samples_of_one.doubts += [*slowed, *([] if warm is None else [warm])]
        for key, again in self.off_again.items():
            checked_TH = self.checked[again.variant_id].final_TH
            again.measurement = self._timed(again.measurement, samples[key], again.last_timed_TH, checked_TH)
        for key, this in list(self.checked.items()):
            self.outcome[key] = self._timed(self.outcome[key], samples[key], this.last_timed_TH, this.final_TH)
            if self.outcome[key].status is not Status.OK:
                del self.checked[key]

    def _repeat_if_doubtful(self) -> None:
        """Where some rank doubts a variant, time all once more, each alone until steady, and say what that changes.

        In the last pass alone: a GPU at its power limit makes every pass doubtful, and each would cost as much again.
        """
        context, peers, settings = self.context, self.context.peers, self.context.settings
        if not (settings.repeat_doubtful and settings.warm_up_s and context.last_pass):
            return
        if peers.agree(not any(self.outcome[key].flags for key in self.checked)):
            return
        alone = alone_until_steady(
            {key: this.run for key, this in self.checked.items()},
            context.timer,
            context.settings,
            lambda detail, current: self._announce("measure", current, detail),
            peers,
            self._flush() or no_flush,
        )
        baselines = self._baselines()
        for key, found in alone.items():
            this, off_key = self.outcome[key], baselines.get(key)
            said = [found.doubt]
            if off_key is not None:
                turns_s = self.outcome[off_key].samples_s, this.samples_s
                said.append(disagreement(alone[off_key], found, *turns_s, context.settings.same_within))
            doubts = tuple(doubt for doubt in said if doubt is not None)
            self.outcome[key] = replace(this, alone_s=found.median_s, flags=(*this.flags, *doubts))

    def _flush(self) -> l2.L2Flush | None:
        """Empties the L2 cache. Made once the inputs are built: what is allocated later would be in it."""
        return l2.L2Flush(self.context.device) if self.context.flushes else None

    def _baselines(self) -> dict[str, str]:
        """Key of everything that is timed -> key of the T1 it is compared with, where that is timed too."""
        of_case = {variant_id(variant): variant_id(variant.unsplit()) for variant in self.case.variants}
        of_case |= {key: again.variant_id for key, again in self.off_again.items()}
        timed = (*self.checked, *self.off_again)
        return {key: of_case[key] for key in timed if of_case[key] != key and of_case[key] in self.checked}

    def _timed(
        self, measurement: Measurement, samples: Samples, last_timed_TH: Tensor | None, checked_TH: Tensor
    ) -> Measurement:
        """With its samples, if what was timed last, on every rank, is what was checked."""
        assert last_timed_TH is not None
        if self.context.peers.agree(torch.equal(last_timed_TH, checked_TH)):
            return with_samples(measurement, samples)
        reason = "the last timed iteration's output differs from the checked one"
        return replace(measurement, status=Status.INCORRECT, reason=reason)

    def _stamp(self, target: Target, variant: Variant) -> None:
        key, peers = variant_id(variant), self.context.peers
        run = self.checked[key].run
        stages, memory = target.watching_memory(lambda: stage_times(run, self.context.device, peers), run.pool_bytes)
        memory = peers.most(memory)
        timed_s = median(self.outcome[key].samples_s)
        flags = self.outcome[key].flags
        if abs(stages.span_s / timed_s - 1) > PERTURBED_BEYOND:
            flags = (*flags, f"{PERTURBED}: its span is {stages.span_s / timed_s:.2f}x the timed median")
        if memory is not None and memory.retained_bytes > 0:
            flags = (*flags, retention.said(memory.retained_bytes, retention.retained_sites(self.checked[key].run)))
        self.outcome[key] = replace(self.outcome[key], stages=stages, memory=memory, flags=flags)

    def _cross_check(self) -> None:
        """The timer against the profiler's span, on this rank."""
        context = self.context
        if not (context.cross_checks and self.checked):
            return

        def announce(current: str | None) -> None:
            self._announce("cross-check", current)
            context.progress.clear()

        announce(None)
        calls = {key: this.run for key, this in self.checked.items()}
        for key, work in device_works(calls, context.timer, context.peers, announce).items():
            said = work.disagreement()
            flags = self.outcome[key].flags if said is None else (*self.outcome[key].flags, said)
            self.outcome[key] = replace(self.outcome[key], device_work=work, flags=flags)


def no_flush() -> None:
    """Samples begin with whatever the cache holds."""


def with_samples(measurement: Measurement, samples: Samples) -> Measurement:
    """The measurement with its timings."""
    return replace(
        measurement,
        samples_s=tuple(samples.samples_s),
        places=tuple(samples.places),
        rounds=tuple(samples.rounds),
        rank_skew=samples.rank_skew,
        flags=(*measurement.flags, *samples.doubts),
    )
