"""The process that touches the device: runs one pass of cases, tells the supervisor, stores nothing.

python -P -m bench.worker --probe --device auto       one Ready line on standard output
python -P -m bench.worker --events-fd 5 < job.json    events on descriptor 5

A job of several ranks is started as one worker, which is rank 0 and starts the others:
python -P -m bench.worker --events-fd 7 --rank 1 --rendezvous FILE < job.json    only a failure on descriptor 7
"""

import argparse
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.environment import check_torch, choose_device, describe, environment, uuid_of
from bench.errors import BenchError, Exit
from bench.measure.peers import ALONE, Peers
from bench.measure.timer import timer_for
from bench.pass_context import CaseFailureError, PassContext
from bench.pass_runner import CaseRun
from bench.results import to_record
from bench.running.leaving import leave_with_supervisor
from bench.running.messages import EXIT_AFTER_FAILURE, Event, Failed, Finished, Job, Ready, dump_event, load_job
from bench.running.progress_file import ProgressFile
from bench.running.ranks import OtherRanks, Tell, failures_only, leave_with_rank_0
from bench.spent import process_age_s
from bench.targets import Targets
from bench.telemetry import watching

OVER_THE_LIMIT_S = 60.0
"""A collective may wait for a rank this much longer than a case may take: the supervisor's limit comes first."""


def main() -> int:
    """Probe or run a pass; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.worker")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--events-fd", type=int)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--rendezvous", type=Path)
    args = parser.parse_args()
    try:
        check_torch()
        if args.probe:
            sys.stdout.buffer.write(dump_event(probed(choose_device(args.device))))
            return Exit.DONE
        job = load_job(sys.stdin.buffer.readline())
        if args.rank:
            leave_with_rank_0(args.events_fd)
            return run_as_one_of_many(job, args.rank, args.rendezvous, failures_only(args.events_fd))
        leave_with_supervisor(args.events_fd)
        tell = teller(args.events_fd)
        if job.ranks == 1:
            return run_pass(job, choose_device(job.device), ALONE, tell)
        others = OtherRanks(job, tell)
        return run_as_one_of_many(job, 0, others.rendezvous, others.tell)
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.code


def ready(device: torch.device, ranks: int = 1) -> Ready:
    """What this process sees of the machine."""
    return Ready(describe(device, ranks), environment(device))


def probed(device: torch.device) -> Ready:
    """The same, with what the GPU reaches at best: once a sweep."""
    here = ready(device)
    if device.type != "cuda":
        return here
    from bench.measure.ceilings import ceilings

    try:
        found = ceilings(device, timer_for(device).device_time_s)
    except torch.OutOfMemoryError:  # a GPU that others fill may still have room for the cases
        return here
    return Ready(here.machine, {**here.environment, "ceilings": found})


def teller(events_fd: int) -> Tell:
    """Writes events for the supervisor."""

    def tell(event: Event) -> None:
        os.write(events_fd, dump_event(event))

    return tell


def run_as_one_of_many(job: Job, rank: int, rendezvous: Path, tell: Tell) -> int:
    """The pass as one rank of ``job.ranks``: on a GPU of its own, or on its share of the CPU's threads."""
    from bench.measure.group import joined

    device = choose_device(job.device)
    if device.type == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // job.ranks))
    with joined(rank, job.ranks, rendezvous, device, job.measure.case_limit_s + OVER_THE_LIMIT_S) as peers:
        return run_pass(job, device, peers, tell)


def run_pass(job: Job, device: torch.device, peers: Peers, tell: Tell) -> int:
    """Every case of the job, one event a step."""
    here = ready(device, peers.size)
    tell(here)
    context = PassContext(
        job.pass_index,
        job.measure,
        device,
        here.machine,
        Targets(device, peers.rank if peers.size > 1 else None),
        timer_for(device),
        ProgressFile(Path(job.progress_path)),
        tell,
        peers,
        watching(uuid_of(device) if device.type == "cuda" else None),
    )
    started_s = process_age_s()
    for job_case in job.cases:
        case_run = CaseRun.of(context, job_case)
        if started_s is not None:
            case_run.spent.add("start", started_s)
            started_s = None
        try:
            tell(Finished(to_record(case_run.trial())))
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
