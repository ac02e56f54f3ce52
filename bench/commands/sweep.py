"""``bench sweep``: measure every case of a sweep file and answer its question."""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from bench import filters, use_tbo
from bench.added_cases import Added
from bench.cases import Case, expand
from bench.commands.options import device_option
from bench.config import SweepConfig, dump_resolved, load, which
from bench.deciding.facts import flat
from bench.errors import BenchError, Exit
from bench.measure.peers import BACKEND
from bench.naming import case_names, machine_name
from bench.printable import printable
from bench.render import remarks
from bench.render.progress import SweepProgress
from bench.results import Trial
from bench.run_folder import RunFolder
from bench.running import changes, resume, run_writer
from bench.running.failures import Failure, failures, outcome_lines
from bench.running.interrupts import leave, on_interrupt
from bench.running.launched import launched, ranks_asked_for
from bench.running.messages import Ready
from bench.running.probe import DeviceChoice, probe
from bench.running.rounds import measure_what_verdicts_ask
from bench.running.run_writer import RunWriter
from bench.running.settled import refuse_if_nothing_runs
from bench.running.supervisor import Sweep, supervise


@click.command("sweep")
@click.argument("config", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Run folder, runs/<config>_<UTC> unless named.")
@click.option("--resume", "go_on", is_flag=True, help="Go on in --out: what is missing, failed, or has other variants.")
@click.option("--anyway", is_flag=True, help="With --resume: go on though code, machine or settings have changed.")
@click.option("--filter", "terms", metavar="KEY=VALUE,...", help="Only these: tokens=1024,engine=streams.")
@device_option
@click.option("--nproc", type=click.IntRange(1), help="Processes, one a rank and GPU (link collective).  [default: 1]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def command(
    config: Path,
    out: Path | None,
    go_on: bool,
    anyway: bool,
    terms: str | None,
    device: DeviceChoice,
    nproc: int | None,
    as_json: bool,
) -> int:
    """Measure TBO off against TBO on for every case of the sweep file CONFIG.

    Exit code 5: the sweep ended, and some cases failed; they are listed with the command that repeats them.
    """
    if go_on and out is None:
        raise BenchError("--resume: needs --out DIR, the run folder to go on in")
    if anyway and not go_on:
        raise BenchError("--anyway: needs --resume, it allows what a resumed sweep would refuse")
    found = launched(os.environ)
    if found and found.rank:
        return Exit.DONE  # rank 0 of this host starts the workers of all ranks, anew in every pass
    ranks = ranks_asked_for(nproc, found)
    with on_interrupt(leave):
        sweep, ignored = use_tbo.with_variants(load(config), os.environ)
        for line in filter(None, (which(config), ignored)):
            click.echo(line, err=True)
        listed = expand(sweep)
        stored = RunFolder(out).trials() if go_on and out and sweep.measure.adds_cases else []
        every_case = [*listed, *Added(listed, sweep.measure).cases(stored)]
        cases = filters.select(every_case, terms)
        ready = of_ranks(probe(device), ranks)
        refuse_if_nothing_runs(cases, ready.machine)
        with run_writer.resume(out, config) if go_on and out else run_writer.create(out, config) as run:
            again = ["bench", "sweep", str(config), "--out", str(run.path), "--resume", "--device", device]
            again += ["--nproc", str(ranks)] if ranks > 1 else []
            again += ["--anyway"] if anyway else []
            todo = _todo(run, sweep, every_case, cases, ready, anyway)
            _say_plan(run, cases, todo, ready)
            asked = [case for case in cases if case.case_id in {one.case_id for one in listed}]

            def carry_out(names: dict[str, str], todo: resume.Todo) -> None:
                with SweepProgress(names, todo) as progress:
                    supervise(Sweep(todo, ready.machine, sweep.measure, run, progress))

            try:
                carry_out(case_names(every_case), todo)
                measure_what_verdicts_ask(run.folder, sweep.measure, asked, carry_out, _say)
            except BenchError as error:
                raise _with_way_on(error, run, [*again, *(["--filter", terms] if terms else [])]) from error
            trials = run.folder.trials()
            names = case_names([*every_case, *Added(every_case, sweep.measure).cases(trials)])
            asked_for = {case.case_id for case in (*cases, *Added(asked, sweep.measure).cases(trials))}
            failed = failures(trial for trial in trials if trial.case_id in asked_for)
            _report(run, failed, as_json)
    _say_failures(failed, names, again)
    return Exit.FAILED_CASES if failed else Exit.DONE


def _say(line: str) -> None:
    click.echo(line, err=True)


def of_ranks(ready: Ready, nproc: int) -> Ready:
    """What was found, as ``nproc`` ranks of one group will use it.

    Raises:
        BenchError: fewer GPUs than ranks.
    """
    if nproc == 1:
        return ready
    if ready.machine.device == "cuda" and (gpus := len(ready.environment["visible_gpus"])) < nproc:
        raise BenchError(f"--nproc {nproc}: each rank needs a GPU of its own, torch sees {gpus} (allowed: 1..{gpus})")
    group = {"nproc": nproc, "backend": BACKEND[ready.machine.device]}
    return Ready(replace(ready.machine, ranks=nproc), {**ready.environment, "group": group})


def _todo(
    run: RunWriter, sweep: SweepConfig, every_case: Sequence[Case], cases: Sequence[Case], ready: Ready, anyway: bool
) -> resume.Todo:
    """What is left to do in ``run``, once it is sure that it may be done there."""
    trials = run.folder.trials()
    if run.folder.config_path.exists():
        resume.refuse_changed_measure(run.folder.config().measure, sweep.measure)
    environment = _environment(run, trials, ready, anyway)
    resume.refuse_other_cases(trials, every_case)
    run.write_config(dump_resolved(sweep))
    run.write_environment(environment)
    return resume.remaining(cases, every_case, trials, sweep.measure.passes)


def _environment(run: RunWriter, trials: Sequence[Trial], ready: Ready, anyway: bool) -> dict[str, Any]:
    """What environment.json must say: where the run's first Trial was measured, and what was changed since."""
    found = {"machine": asdict(ready.machine), **ready.environment}
    if not trials:
        return found
    stored = run.folder.environment() if run.folder.environment_path.exists() else {}
    if not changes.code_known(flat(stored)) and changes.code_known(flat(ready.environment)):
        click.echo(changes.CODE_UNKNOWN, err=True)
    changed = changes.changes(trials, stored, ready)
    if not anyway:
        changes.refuse(changed)
    for line in changed:
        click.echo(printable(f"--anyway: {line}"), err=True)
    return changes.recorded(stored or found, changed) if changed else stored or found


def _say_plan(run: RunWriter, cases: Sequence[Case], todo: resume.Todo, ready: Ready) -> None:
    if run.repaired:
        click.echo(f"repaired {run.repaired}", err=True)
    left, whole = sum(map(len, todo)), len(cases) * len(todo)
    there = "" if left == whole else f" ({whole - left} of {whole} Trials are there)"
    what = f"cases {len(cases)} x passes {len(todo)} = {whole} Trials{there}" if left else f"nothing left to do{there}"
    click.echo(f"sweep: {what}; on {machine_name(ready.machine)}; writes to {run.path}", err=True)
    for line in remarks.of(cases):
        click.echo(line, err=True)


def _with_way_on(error: BenchError, run: RunWriter, again: Sequence[str]) -> BenchError:
    """The same error, with what is kept and how to go on from there."""
    kept = f"Trials kept in {run.path}: {len(run.folder.trials())}"
    return BenchError(*error.problems, f"{kept}; go on with: {shlex.join(again)}", code=error.code)


def _report(run: RunWriter, failed: Sequence[Failure], as_json: bool) -> None:
    """Write the report's files, show its summary. Imports here: plots are slow to load, and --help needs none."""
    from bench import report
    from bench.render import document, files, printing, terminal

    model = report.build(run.folder)
    written = files.write(model, run.path)
    if as_json:
        answer = {
            "run": str(run.path),
            "files": [str(path) for path in written],
            "failed": [asdict(failure) for failure in failed],
            "report": document.document(model),
        }
        click.echo(json.dumps(answer, indent=2, allow_nan=False))
        return
    printing.show(terminal.summary(model))
    for path in (run.folder.results_path, *written):
        click.echo(f"wrote {path}")


def _say_failures(failed: Sequence[Failure], names: dict[str, str], again: Sequence[str]) -> None:
    for case_id in dict.fromkeys(failure.case_id for failure in failed):
        click.echo(printable(f"failed: {names[case_id]}"), err=True)
        here = [(one.variant, one.status, one.reason) for one in failed if one.case_id == case_id]
        for line in outcome_lines(here):
            click.echo(printable(f"  {line}"), err=True)
        click.echo(printable(f"  repeat with: {shlex.join([*again, '--filter', names[case_id]])}"), err=True)
