"""The three traces of tests/data (TBO off, split but serial, overlapped) as a profile that a run keeps."""

import gzip
import shutil
from pathlib import Path

import synthetic

from bench.cases import Case
from bench.profiling.kept import TIMELINES, Kept, keep
from bench.profiling.request import Request, trace_name

DATA = Path(__file__).parent / "data"
TRACES = tuple(DATA / f"trace_{name}.json.gz" for name in ("off", "serial", "streams"))
"""T1, T2s, T2o."""


def case() -> Case:
    """What the traces show: four layers of a DeepSeek-V3 EP8 rank, 8192 tokens."""
    (found,) = synthetic.cases((8192,), ("nvfp4-w4a16",), layers=4)
    return found


def raw_traces(folder: Path) -> list[Path]:
    """What torch's profiler leaves in ``folder``: plain JSON, one file a variant."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / trace_name(index) for index in range(len(TRACES))]
    for packed, path in zip(TRACES, paths, strict=True):
        with gzip.open(packed) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
    return paths


def plant(run: Path) -> Kept:
    """Keep the profile under ``run``."""
    folder = run / TIMELINES / f"{case().case_id}-torch"
    request = Request(case(), "torch", str(folder))
    return keep(request, raw_traces(folder), "bench profile RUN --case ID --tool torch")
