"""Cut a torch.profiler trace to one iteration: a real trace that is small enough to be committed.

PYTHONPATH=. python tools/cut_trace.py TRACE.json OUT.json.gz

Kept, unchanged: the GPU work of the iteration of median span, the calls that launched it, and the ranges around those.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

from bench.timeline.attribute import attribute
from bench.timeline.json_stream import events
from bench.timeline.kineto import LAUNCHES, RANGE, WORK, read
from bench.timeline.metrics import iterations
from bench.timeline.repeating import with_iterations


def of_one_iteration(path: Path) -> list[dict[str, Any]]:
    """The events to keep, in the file's order."""
    found, told = with_iterations(attribute(read(path)))
    if told == "untold":
        raise SystemExit(f"{path}: its iterations cannot be told apart")
    measured = sorted(iterations(found), key=lambda m: m.span_ns)
    mine = found.iteration == measured[(len(measured) - 1) // 2].iteration
    work = found.profile.work.take(mine)
    chosen = set(zip(work.start_ns.tolist(), work.stream.tolist(), strict=True))
    every = [event for event in events(path) if event.get("ph") == "X"]
    kept = [e for e in every if e.get("cat") in WORK and (round(e["ts"] * 1000), e["args"]["stream"]) in chosen]
    correlations = {e["args"]["correlation"] for e in kept}
    calls = [e for e in every if e.get("cat") in LAUNCHES and e.get("args", {}).get("correlation") in correlations]
    times = {(e["pid"], e["tid"]): sorted(c["ts"] for c in calls if c["tid"] == e["tid"]) for e in calls}
    around = [
        e
        for e in every
        if e.get("cat") == RANGE
        and any(e["ts"] <= time <= e["ts"] + e["dur"] for time in times.get((e["pid"], e["tid"]), ()))
    ]
    identities = {id(event) for event in (*kept, *calls, *around)}
    return [event for event in every if id(event) in identities]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in of_one_iteration(asked.trace))
    text = f'{{"displayTimeUnit": "ms", "traceEvents": [\n{lines}\n]}}\n'
    asked.out.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{asked.out}: {asked.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
