"""A worker without torch: speaks the protocol of bench.running.messages, misbehaves as the file in FAKE_WORKER says.

The file holds {"log": PATH, "rules": [RULE, ...], "gpu": true for an H100}; the log gets one line for every started
worker. A rule says what to ``do`` and ``at`` which moment (start, ready, build, check, measure, leave; on an H100 in
the last pass cross-check, too; choose experts where a variant says ``experts: auto``), and may name the worker (counted
from 0), pass, tokens, role (null: when no variant is under way) and candidate that it is for. Made-up Trials come from
synthetic.
"""

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthetic import CPU, H100, Builder

from bench.errors import Exit
from bench.identity import variant_id
from bench.results import ExpertsChoice, to_record
from bench.running.leaving import leave_with_supervisor
from bench.running.messages import (
    EXIT_AFTER_FAILURE,
    Event,
    Failed,
    Finished,
    JobCase,
    Ready,
    Step,
    dump_event,
    load_job,
)
from bench.running.progress_file import ProgressFile
from moe_impl.options import OWN_WEIGHTS


class FakeWorker:
    def __init__(self, events_fd: int, script: dict[str, Any]) -> None:
        self.job = load_job(sys.stdin.buffer.readline())
        self.machine = replace(H100 if script.get("gpu") else CPU, ranks=self.job.ranks)
        self.events_fd, self.rules = events_fd, script["rules"]
        leave_with_supervisor(events_fd)
        self.progress = ProgressFile(Path(self.job.progress_path))
        log = Path(script["log"])
        self.number = len(log.read_text().splitlines()) if log.exists() else 0
        started = {
            "pass": self.job.pass_index,
            "pid": os.getpid(),
            "tokens": [one.case.workload.tokens for one in self.job.cases],
            "settled": [[m.role for m in one.settled] for one in self.job.cases],
            "device": self.job.device,
            "ranks": self.job.ranks,
        }
        with log.open("a") as file:
            file.write(json.dumps(started) + "\n")

    def tell(self, event: Event) -> None:
        os.write(self.events_fd, dump_event(event))

    def run(self) -> int:
        self.misbehave("start")
        self.tell(Ready(self.machine, {"made": "up"}))
        self.misbehave("ready")
        for one in self.job.cases:
            self.run_case(one)
        self.misbehave("leave")
        return Exit.DONE

    def run_case(self, one: JobCase) -> None:
        case = one.case
        settled = {m.variant_id: m for m in one.settled}
        self.tell(Step(case.case_id, "build"))
        self.progress.clear()
        self.misbehave("build", one)
        choice = self.choose_experts(one) if any(v.experts == "auto" for v in case.variants) else None
        running = [(i, v) for i, v in enumerate(case.variants) if variant_id(v) not in settled]
        for index, variant in running:
            self.tell(Step(case.case_id, "check", variant_id(variant)))
            self.progress.of(index)(3)
            self.misbehave("check", one, variant)
        self.tell(Step(case.case_id, "measure", None, "round 1 of 1"))
        for index, variant in running:
            self.progress.of(index)(5)
            self.misbehave("measure", one, variant)
        if self.job.measure.cross_check and self.machine.device == "cuda" and self.job.pass_index == self.last_pass:
            self.cross_check(one, running)
        made = Builder(machine=self.machine, pairs=2, passes=self.job.pass_index + 1)
        trial = made.trials([replace(case, variants=tuple(v for _, v in running))])[-1]
        outcomes = settled | {m.variant_id: m for m in trial.measurements}
        measured = tuple(outcomes[variant_id(v)] for v in case.variants)
        whole = replace(trial, measurements=measured, experts_choice=choice)
        self.tell(Finished(to_record(whole)))

    @property
    def last_pass(self) -> int:
        return self.job.measure.passes - 1

    def choose_experts(self, one: JobCase) -> ExpertsChoice:
        """The first that it may try."""
        candidates = [name for name in OWN_WEIGHTS[one.case.workload.precision] if name not in one.ruled_out]
        for name in candidates:
            self.tell(Step(one.case.case_id, "choose experts", None, name))
            self.misbehave("choose experts", one, candidate=name)
        return ExpertsChoice(candidates[0], out={**one.ruled_out})

    def cross_check(self, one: JobCase, running: list[tuple[int, Any]]) -> None:
        """Every variant, and then what no variant is to blame for."""
        for index, variant in running:
            self.tell(Step(one.case.case_id, "cross-check", variant_id(variant)))
            self.progress.of(index)(7)
            self.misbehave("cross-check", one, variant)
        self.tell(Step(one.case.case_id, "cross-check"))
        self.progress.clear()
        self.misbehave("cross-check", one)

    def misbehave(self, at: str, one: JobCase | None = None, variant: Any = None, candidate: str | None = None) -> None:
        now = {"at": at, "worker": self.number, "pass": self.job.pass_index, "candidate": candidate}
        if one is not None:
            now["tokens"] = one.case.workload.tokens
        if variant is not None:
            now["role"] = variant.role
        for rule in self.rules:
            if all(now.get(key) == value for key, value in rule.items() if key != "do"):
                self.do(rule["do"], at, one, variant)

    def do(self, what: str, at: str, one: JobCase | None, variant: Any) -> None:
        print(f"about to {what}", file=sys.stderr, flush=True)
        match what:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                sys.exit(3)
            case "say":
                os.write(self.events_fd, b'{"kind": "finis')
                os._exit(0)
            case "nap":
                time.sleep(0.3)
            case "stall":
                time.sleep(60)
            case "slow":
                for position in range(6000):
                    self.progress.of(0)(position % 29)
                    time.sleep(0.01)
            case "leave a child":
                if os.fork() == 0:
                    time.sleep(60)
                os._exit(1)
            case _:  # a Failed event's status
                assert one is not None
                named = variant_id(variant) if variant is not None and at in ("check", "cross-check") else None
                self.tell(Failed(one.case.case_id, at, named, what, f"made up {what}"))
                sys.exit(EXIT_AFTER_FAILURE)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--device")
    parser.add_argument("--events-fd", type=int)
    args = parser.parse_args()
    script = json.loads(Path(os.environ["FAKE_WORKER"]).read_text())
    if not args.probe:
        return FakeWorker(args.events_fd, script).run()
    answer = script.get("probe", "ready")
    if answer == "refuse":
        print(f"--device {args.device}: made-up refusal", file=sys.stderr)
        return Exit.BAD_INPUT
    if answer == "break":
        sys.exit("made-up traceback")
    print("a library's greeting")
    if answer == "ready":
        sys.stdout.write(dump_event(Ready(CPU, {"asked": args.device})).decode())
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
