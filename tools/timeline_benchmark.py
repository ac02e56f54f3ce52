"""How long `bench analyze` takes on a large profile: makes one, and reads it in a process of its own.

python tools/timeline_benchmark.py [--kernels 1000000] [--folder /tmp]
"""

import argparse
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KINETO_SHARE = 0.65
"""Of the kernels: then a million makes a trace of 500 MB beside an export of 100 MB."""
STAGES = ("dispatch", "gemm1", "silu_mul", "gemm2", "combine")
PADDING = "x" * 120
"""A Kineto kernel's args hold occupancy, grid and block: about 330 bytes an event in all."""


def make_sqlite(path: Path, kernels: int) -> None:
    """An export with one API call and one range for each kernel."""
    path.unlink(missing_ok=True)
    thread, process = 281482341908919, 281482341908919 & 0xFFFFFFFFFF000000
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE StringIds (id INTEGER, value TEXT)")
    db.execute(
        "CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER, end INTEGER, deviceId INTEGER, streamId INTEGER,"
        " shortName INTEGER, correlationId INTEGER, globalPid INTEGER)"
    )
    db.execute(
        "CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER, end INTEGER, globalTid INTEGER,"
        " correlationId INTEGER, nameId INTEGER)"
    )
    db.execute(
        "CREATE TABLE NVTX_EVENTS (start INTEGER, end INTEGER, eventType INTEGER, globalTid INTEGER, text TEXT,"
        " textId INTEGER, domainId INTEGER, category INTEGER, int64Value INTEGER, uint64Value INTEGER,"
        " int32Value INTEGER, uint32Value INTEGER)"
    )
    names = [f"{stage} layer 0 ubatch 0" for stage in STAGES]
    db.executemany("INSERT INTO StringIds VALUES (?, ?)", list(enumerate([*names, "cudaLaunchKernel"])))
    db.execute(
        "INSERT INTO NVTX_EVENTS VALUES (0, NULL, 75, ?, 'moe_tbo', NULL, 1, 0, NULL, NULL, NULL, NULL)", (thread,)
    )
    rows = range(1, kernels + 1)
    db.executemany(
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (?, ?, 0, ?, ?, ?, ?)",
        ((i * 1000, i * 1000 + 900, 7 + i % 2, i % 5, i, process) for i in rows),
    )
    db.executemany(
        "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (?, ?, ?, ?, 5)",
        ((i * 1000 - 600, i * 1000 - 500, thread, i) for i in rows),
    )
    db.executemany(
        "INSERT INTO NVTX_EVENTS VALUES (?, ?, 59, ?, NULL, ?, 1, 0, NULL, NULL, NULL, NULL)",
        ((i * 1000 - 700, i * 1000 - 400, thread, i % 5) for i in rows),
    )
    db.commit()
    db.close()


def make_kineto(path: Path, kernels: int) -> None:
    """A trace with one API call and one annotation for each kernel."""
    with path.open("w") as file:
        file.write('{"schemaVersion": 1, "traceEvents": [\n')
        for i in range(1, kernels + 1):
            name = f"moe_tbo/{STAGES[i % 5]} layer 0 ubatch 0"
            kernel = {"stream": 7 + i % 2, "device": 0, "correlation": i, "grid": [1, 2, 3], "more": PADDING}
            events = (
                {"ph": "X", "cat": "user_annotation", "name": name, "pid": 1, "tid": 1, "ts": i - 0.7, "dur": 0.3},
                {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": i - 0.6,
                 "dur": 0.1, "args": {"correlation": i, "more": PADDING}},
                {"ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": i, "dur": 0.9, "args": kernel},
            )  # fmt: skip
            file.write("".join(json.dumps(event, indent=1) + ",\n" for event in events))
        file.write('{"ph": "M", "name": "end"}]}\n')


def read(path: Path) -> None:
    """In a process of its own: its peak memory is what reading took."""
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "bench.cli", "analyze", str(path), "--json"], check=True, stdout=subprocess.DEVNULL
    )
    taken_s = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB read in {taken_s:.1f} s, peak {peak:.2f} GiB so far")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernels", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    for suffix, make, kernels in (
        (".sqlite", make_sqlite, args.kernels),
        (".json", make_kineto, int(args.kernels * KINETO_SHARE)),
    ):
        path = args.folder / f"timeline_benchmark{suffix}"
        make(path, kernels)
        read(path)
        path.unlink()


if __name__ == "__main__":
    main()
