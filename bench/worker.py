"""The process that touches the device: runs one pass of cases, tells the supervisor, stores nothing.

python -P -m bench.worker --probe --device auto       one Ready line on standard output
python -P -m bench.worker --events-fd 5 < job.json    events on descriptor 5
"""

import argparse
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.environment import check_torch, choose_device, describe, environment
from bench.errors import BenchError, Exit
from bench.measure.timer import timer_for
from bench.pass_runner import CaseFailureError, CaseRun, PassContext
from bench.results import to_record
from bench.running.messages import EXIT_AFTER_FAILURE, Event, Failed, Finished, Ready, dump_event, load_job
from bench.running.progress_file import ProgressFile
from bench.targets import Targets


def main() -> int:
    """Probe or run a pass; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.worker")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--events-fd", type=int)
    args = parser.parse_args()
    try:
        check_torch()
        if args.probe:
            sys.stdout.buffer.write(dump_event(ready(choose_device(args.device))))
            return Exit.DONE
        return run_pass(args.events_fd)
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.code


def ready(device: torch.device) -> Ready:
    """What this process sees of the machine."""
    return Ready(describe(device), environment(device))


def run_pass(events_fd: int) -> int:
    """Every case of the job on standard input, one event a step."""

    def tell(event: Event) -> None:
        os.write(events_fd, dump_event(event))

    job = load_job(sys.stdin.buffer.readline())
    device = choose_device(job.device)
    tell(ready(device))
    context = PassContext(
        job.pass_index,
        job.measure,
        device,
        describe(device),
        Targets(device),
        timer_for(device),
        ProgressFile(Path(job.progress_path)),
        tell,
    )
    for job_case in job.cases:
        try:
            tell(Finished(to_record(CaseRun.of(context, job_case).trial())))
        except CaseFailureError as failure:
            traceback.print_exception(failure.__cause__)
            tell(failed(job_case.case.case_id, failure))
            return EXIT_AFTER_FAILURE
    return Exit.DONE


def failed(case_id: str, failure: CaseFailureError) -> Failed:
    """What to tell of it."""
    cause = failure.__cause__
    out_of_memory = any(isinstance(error, torch.OutOfMemoryError | MemoryError) for error in causes(cause))
    reason = f"{type(cause).__name__}: {first_line(cause)}"
    return Failed(case_id, failure.phase, failure.variant_id, "oom" if out_of_memory else "error", reason)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from: an engine that issues from other threads wraps what an op raised."""
    while error is not None:
        yield error
        error = error.__cause__


def first_line(error: BaseException | None) -> str:
    """Of its message, shortened: torch's run to pages."""
    return (str(error).strip().splitlines() or ["no message"])[0][:300]


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
