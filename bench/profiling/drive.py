"""Start a tool round the profiled process, and leave its raw reports and what can be read of them in a folder.

What Nsight Compute is asked, and how its report is read, is in bench.profiling.ncu.
"""

import os
import re
import secrets
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from bench.doctor import tools
from bench.errors import BenchError, Exit
from bench.profiling.pared import pare
from bench.profiling.request import Request, dump, trace_name
from bench.running.worker_process import exit_words, one_line, worker_environment

LIMIT_S = 900.0
NSYS_OPTIONS = (
    "--trace=cuda,nvtx",
    "--cuda-event-trace=false",  # it may order streams that nothing else orders
    "--cuda-graph-trace=node",
    "--sample=none",
    "--cpuctxsw=none",
    "--capture-range=cudaProfilerApi",
    "--capture-range-end=stop",
    "--force-overwrite=true",
)
DISCARD = "--discard-environment"
"""An option of later versions; without it only the pared export is kept. The profiled process gets little of this
one's environment in either case (:func:`allowed`)."""
CANARY = "MOE_TBO_BENCH_CANARY"
"""An environment variable of a random value that no profiled process gets: a report that holds it came by the rest."""
ALLOWED = re.compile(
    r"(PATH|LD_LIBRARY_PATH|PYTHONPATH|HOME|TMPDIR|LANG|VIRTUAL_ENV|(CUDA|NVIDIA|NCCL|TRITON|PYTORCH)_\w+)"
)
"""What a profiled process needs of the environment, and what changes its timing; profilers keep it in their reports."""


def target_command() -> tuple[str, ...]:
    """The profiled process. ``-P``: a file of the user's folder must not shadow a module of ours."""
    return (sys.executable, "-P", "-m", "bench.profiling.target")


def profile(request: Request, start: Sequence[str] | None = None) -> list[Path]:
    """Run the request; returns what ``bench analyze`` reads, one file or one a variant.

    nsys's own report stays beside its export where nsys can keep environments out of it.

    Args:
        start: the profiled process, where a test puts another one in its place.

    Raises:
        BenchError: the tool is missing, the process failed, or a report holds the process environment.
    """
    folder = Path(request.folder)
    process = tuple(start or target_command())
    if request.tool == "torch":
        run(process, request)
        return [folder / trace_name(index) for index in range(len(request.case.variants))]
    nsys = tools.find_tool("nsys", "*/host/target-linux-x64/nsys")
    if nsys is None:
        raise BenchError("nsys is neither on PATH nor inside Nsight Compute (bench doctor says what is missing)")
    report = folder / "nsys"
    discard = (f"{DISCARD}=true",) if DISCARD in tools.output_of([str(nsys), "profile", "--help"]) else ()
    with planted() as canary:
        run((str(nsys), "profile", *NSYS_OPTIONS, *discard, f"--output={report}", *process), request)
    export = _exported(nsys, report)
    if holds(export, canary):
        export.unlink()
        raise BenchError(f"{export}: holds the environment of the profiled process, which may hold secrets: deleted")
    pare(export)
    if not discard:  # 2025.3's report held, compressed, the environment of other processes of the machine
        report.with_suffix(".nsys-rep").unlink()
    return [export]


@contextmanager
def planted() -> Iterator[str]:
    """CANARY's value, in this process's environment meanwhile."""
    canary = secrets.token_hex(16)
    os.environ[CANARY] = canary
    try:
        yield canary
    finally:
        del os.environ[CANARY]


def allowed(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a profiled process gets."""
    return {name: value for name, value in environment.items() if ALLOWED.fullmatch(name)}


def run(words: Sequence[str], request: Request, hear: Callable[[str], None] = lambda said: None) -> None:
    """Run a process; it gets the request on standard input, and little of the environment.

    Args:
        words: the command.
        request: what to do.
        hear: called with all that the process printed, before it is judged by its exit code.

    Raises:
        BenchError: it fails, or takes over LIMIT_S and is killed with all that it started; with its last words.
    """
    code, output, errors = _output_of(words, dump(request))
    said = one_line(errors) or one_line(output)
    if code is None:
        raise BenchError(f"the profiled process took over {LIMIT_S:g} s: {shlex.join(words)}; it said: {said}")
    hear(output + errors)
    if code:
        exit_code = Exit.BAD_INPUT if code == Exit.BAD_INPUT else Exit.INTERNAL
        raise BenchError(f"the profiled process {exit_words(code)}: {said}", code=exit_code)


def _output_of(words: Sequence[str], stdin: bytes) -> tuple[int | None, str, str]:
    """Exit code (None: cut off at LIMIT_S), standard output and error. Nothing that it started outlives this call."""
    pipe = subprocess.PIPE
    environment = allowed(worker_environment())
    process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True)
    try:
        output, errors = process.communicate(stdin, LIMIT_S)
        code = process.returncode
    except BaseException as cut_off:  # a tool that is killed alone leaves the process that it profiles
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        if not isinstance(cut_off, subprocess.TimeoutExpired):
            raise
        code = None
    return code, output.decode(errors="replace"), errors.decode(errors="replace")


def _exported(nsys: Path, report: Path) -> Path:
    """The SQLite export of a report; from a .qdstrm, which nsys leaves where its importer did not start, by hand."""
    raw, rep, export = (report.with_suffix(suffix) for suffix in (".qdstrm", ".nsys-rep", ".sqlite"))
    if not rep.exists() and raw.exists():
        importer = tools.newest(nsys.parent.parent.glob("linux-desktop*/QdstrmImporter"))
        if importer is None:
            raise BenchError(f"{raw}: nsys left no report, and there is no QdstrmImporter beside it")
        said = tools.output_of([str(importer), "-i", str(raw), "-o", str(rep)])
        if not rep.exists():
            raise BenchError(f"{raw}: QdstrmImporter made no report of it ({one_line(said)}); see bench doctor")
    if not rep.exists():
        raise BenchError(f"{rep}: nsys left no report", code=Exit.INTERNAL)
    said = tools.output_of(
        [str(nsys), "export", "--type=sqlite", "--force-overwrite=true", f"--output={export}", str(rep)]
    )
    if not export.exists():
        raise BenchError(f"{rep}: cannot be exported: {one_line(said)}", code=Exit.INTERNAL)
    return export


def holds(export: Path, text: str) -> bool:
    """Whether any text of any table contains ``text``: nsys keeps the environment in several."""
    with closing(sqlite3.connect(f"{export.resolve().as_uri()}?mode=ro", uri=True)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            texts = [row[1] for row in db.execute(f'PRAGMA table_info("{table}")') if row[2].upper() in ("TEXT", "")]
            for column in texts:
                query = f'SELECT 1 FROM "{table}" WHERE instr("{column}", ?) LIMIT 1'
                if db.execute(query, (text,)).fetchone():
                    return True
    return False


def repeat(config: Path, request: Request, out: Path | None) -> str:
    """The command that makes this profile again."""
    where = [] if out is None else ["--out", str(out)]
    return shlex.join(["bench", "profile", str(config), "--case", request.case.case_id, "--tool", request.tool, *where])


def folder_for(folder: Path) -> Path:
    """The folder for a profile; made where it is missing.

    Raises:
        BenchError: it is there and not empty, or cannot be made.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise BenchError(f"--out: {folder} is not empty")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise BenchError(f"--out: {folder}: {error.strerror}") from error
    return folder.resolve()
