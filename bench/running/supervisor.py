"""Runs every pass in fresh worker processes, and decides what follows when one of them fails, dies or gets stuck.

Torch-free: nothing that happens on a device can take this process down.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from bench.cases import Case
from bench.device_work import NOT_CROSS_CHECKED
from bench.errors import BenchError, Exit
from bench.identity import variant_id
from bench.results import Measurement, Status, Trial, from_record
from bench.running import progress_file
from bench.running.interrupts import StopRequest, on_interrupt
from bench.running.messages import Event, Failed, Finished, Job, JobCase, Ready, Step
from bench.running.run_writer import RunWriter
from bench.running.settled import Settled
from bench.running.watch import Watch
from bench.running.worker_process import EXIT_GRACE_S, Worker, WorkerExitedError, exit_words, worker_command
from bench.settings import MeasureSettings
from moe_impl.options import Machine

STARTUP_LIMIT_S = 120.0
"""Until ``Ready``: importing torch and making a context."""
SLICE_S = 0.1
"""How often deadlines and signals are looked at while no event comes."""


class Listener(Protocol):
    """Who is told how the sweep goes."""

    def stepped(self, pass_index: int, case: Case, step: Step) -> None:
        """A phase of a case began."""

    def finished(self, trial: Trial) -> None:
        """A Trial was stored."""


@dataclass(frozen=True)
class Sweep:
    """What a supervisor needs to know.

    Attributes:
        todo: per pass, the cases to run in it.
        machine: where; from the probe.
        command: how a worker starts.
    """

    todo: Sequence[Sequence[Case]]
    machine: Machine
    measure: MeasureSettings
    run: RunWriter
    listener: Listener
    command: Sequence[str] = worker_command()
    startup_limit_s: float = STARTUP_LIMIT_S


def supervise(sweep: Sweep) -> None:
    """Run all passes; every case of every pass ends in one stored Trial.

    Raises:
        BenchError: SIGINT or SIGTERM (exit code 130), a full disk (2), workers that end without getting anywhere (70).
            What was finished before is stored.
    """
    stop = StopRequest()
    todo = [case for cases in sweep.todo for case in cases]
    settled = Settled(todo, sweep.machine)
    if any(variant.experts == "auto" for case in todo for variant in case.variants):
        settled.remember_choices(sweep.run.folder.trials())
    with on_interrupt(stop), _temporary_folder() as folder:
        for pass_index, cases in enumerate(sweep.todo):
            _Pass(sweep, pass_index, cases, settled, Path(folder) / "progress", stop).run()


def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix="bench-")
    except OSError as error:
        raise BenchError(f"no temporary folder for the sweep: {error}") from error


class _Pass:
    """One pass: workers are started until nothing of it is left."""

    def __init__(
        self, sweep: Sweep, index: int, cases: Sequence[Case], settled: Settled, progress: Path, stop: StopRequest
    ) -> None:
        self.sweep, self.index, self.settled, self.progress, self.stop = sweep, index, settled, progress, stop
        self.left = {case.case_id: case for case in cases}
        self.began: dict[str, datetime] = {}
        """When a case was first begun: a Trial that took two workers counts both."""
        self.unchecked: str | None = None
        """Why later workers of this pass leave the cross-check out."""

    def run(self) -> None:
        ended_in_vain = False
        while self._left_to_run():
            before = self._reached()
            ending = self._run_worker()
            in_vain = before == self._reached()
            if in_vain and ended_in_vain:
                raise BenchError(f"two workers in a row ended without getting anywhere: {ending}", code=Exit.INTERNAL)
            ended_in_vain = in_vain

    def _reached(self) -> tuple[object, ...]:
        """Changes with every worker that gets anywhere."""
        return len(self.left), self.settled.failures, self.unchecked

    def _left_to_run(self) -> bool:
        """Store what needs no worker (any more); whether something does."""
        for case in list(self.left.values()):
            self._store_if_settled(case)
        return bool(self.left)

    def _run_worker(self) -> str:
        """Let one worker do what it can of what is left. Returns how it ended."""
        jobs = tuple(
            JobCase(case, self.settled.of(case, self.index), self.settled.choice(case), self.settled.ruled_out(case))
            for case in self.left.values()
        )
        machine, measure = self.sweep.machine, self.sweep.measure
        measure = replace(measure, cross_check=measure.cross_check and self.unchecked is None)
        job = Job(self.index, jobs, measure, machine.device, str(self.progress), machine.ranks)
        progress_file.reset(self.progress)
        with Worker(self.sweep.command, job, self.sweep.run.folder.worker_log_path) as worker:
            self._await_ready(worker)
            watch = Watch(self.sweep.measure.case_limit_s, self.progress)
            while self.left:
                try:
                    event = self._next_event(worker)
                except WorkerExitedError:
                    return self._died(worker, watch)
                watch.see(event)
                match event:
                    case Step():
                        self.began.setdefault(event.case_id, datetime.now(UTC))
                        self.sweep.listener.stepped(self.index, self.left[event.case_id], event)
                    case Finished():
                        self._finished(from_record(event.record))
                    case Failed():
                        return self._failed(worker, watch, event)
                if self.left and (status := watch.overdue()) is not None:
                    return self._got_stuck(worker, watch, status)
            return exit_words(worker.end(EXIT_GRACE_S))

    def _next_event(self, worker: Worker) -> Event | None:
        if self.stop.signal_name is not None:
            raise BenchError(f"interrupted by {self.stop.signal_name}", code=Exit.INTERRUPTED)
        return worker.next_event(SLICE_S)

    def _await_ready(self, worker: Worker) -> None:
        deadline_s = time.monotonic() + self.sweep.startup_limit_s
        try:
            while not isinstance(self._next_event(worker), Ready):
                if time.monotonic() > deadline_s:
                    what = f"the worker was not ready within {self.sweep.startup_limit_s:g} s"
                    raise BenchError(worker.with_last_words(what), code=Exit.INTERNAL)
        except WorkerExitedError as error:
            what = f"the worker was {exit_words(worker.end(EXIT_GRACE_S))} before it was ready"
            raise BenchError(worker.with_last_words(what), code=Exit.INTERNAL) from error

    def _failed(self, worker: Worker, watch: Watch, event: Failed) -> str:
        worker.end(EXIT_GRACE_S)
        self._settle(watch, event, Status(event.status), event.reason)
        return event.reason

    def _died(self, worker: Worker, watch: Watch) -> str:
        how = f"worker {exit_words(worker.end(EXIT_GRACE_S))}"
        watch.see(None)  # the op it died in may be later than the last look
        if watch.step is not None:
            self._settle(watch, watch.step, Status.ERROR, how, speaker=worker)
        return worker.with_last_words(how)

    def _got_stuck(self, worker: Worker, watch: Watch, status: Status) -> str:
        worker.end(grace_s=0)
        how = f"case_limit of {watch.limit_s:g} s exceeded"
        if status is Status.HANG:
            how += " without a sign of progress in its last half"
        if watch.step is not None:
            self._settle(watch, watch.step, status, how)
        return worker.with_last_words(how)

    def _settle(
        self, watch: Watch, place: Step | Failed, status: Status, how: str, speaker: Worker | None = None
    ) -> None:
        """The culprit keeps ``status`` for this and later passes; without a culprit, all of the case that is left.

        Everything was timed before the cross-check: what fails there costs no result, the case runs again without it.
        So it does without a backend that ``experts: auto`` tried when the worker ended.
        """
        case = self.left[place.case_id]
        if place.phase == "choose experts" and watch.step is not None and watch.step.detail:
            reason = f"{how}, tried for experts auto"
            reason = reason if speaker is None else speaker.with_last_words(reason)
            self.settled.rule_out(case, watch.step.detail, reason)
            return
        culprit = watch.variant(case, place.variant_id)
        reason = f"{how}, {watch.where(case, place.phase, culprit)}"
        if speaker is not None:
            reason = speaker.with_last_words(reason)
        if place.phase == "cross-check":
            self.unchecked = reason
            return
        name = None if culprit is None else variant_id(culprit)
        self.settled.fail(case, name, status, place.phase, reason, self.index)

    def _store_if_settled(self, case: Case) -> None:
        """A Trial that needs no worker (any more): every variant's outcome is known."""
        if len(self.settled.of(case, self.index)) == len(case.variants):
            now = datetime.now(UTC)
            began = self.began.get(case.case_id, now)
            taken_s = (now - began).total_seconds()
            self._store(
                Trial(
                    workload=case.workload,
                    link=case.link,
                    pass_index=self.index,
                    machine=self.sweep.machine,
                    measurements=self.settled.of(case, self.index),
                    timer="cuda_event" if self.sweep.machine.device == "cuda" else "host",
                    started_at=began.isoformat(timespec="seconds"),
                    elapsed_s=taken_s,
                    overhead_s=taken_s,
                )
            )

    def _finished(self, trial: Trial) -> None:
        """The settled outcomes are this process's word, whatever the worker made of them; order as in the case."""
        case = self.left[trial.case_id]
        outcomes: dict[str, Measurement] = {m.variant_id: self._doubted(m) for m in trial.measurements}
        outcomes |= {m.variant_id: m for m in self.settled.of(case, self.index)}
        self.settled.finish(case, trial)
        self._store(replace(trial, measurements=tuple(outcomes[variant_id(variant)] for variant in case.variants)))

    def _doubted(self, measurement: Measurement) -> Measurement:
        """With a word on the cross-check that it was to get and did not."""
        if self.unchecked is None or measurement.status is not Status.OK:
            return measurement
        return replace(measurement, flags=(*measurement.flags, f"{NOT_CROSS_CHECKED}: {self.unchecked}"))

    def _store(self, trial: Trial) -> None:
        self.sweep.run.append(trial)
        del self.left[trial.case_id]
        self.sweep.listener.finished(trial)
