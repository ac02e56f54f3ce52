"""How long `bench compare A B` and `bench report` take on large runs: makes them, and runs each in its own process.

python tools/compare_benchmark.py [--cases 10000] [--report-cases 1000] [--passes 5] [--samples 100] [--folder /tmp]

A case has T1 and T2s and T2o of two split factors: five variants, each with `--samples` samples over all passes.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import synthetic  # noqa: E402

from bench.identity import case_id  # noqa: E402
from bench.results import to_record  # noqa: E402

TOKENS = tuple(128 * count for count in range(1, 41))
"""Of a series; the seeds make as many series as the cases need."""
CONFIG = """\
schema: 1
case:
  {{model: deepseek-v3, ep_size: 8, layers: 2, tokens: {tokens}, precision: bf16, link: {{paced: h800-nvlink-ep8}},
   seed: {seeds}}}
variants: [{{split_factor: [2, 4]}}]
measure: {{passes: {passes}}}
"""


def records(cases: int, passes: int, samples: int, seed: int) -> Iterator[dict[str, Any]]:
    """Stored Trials: exact times of the synthetic machine, stages and all, with noise of their own."""
    draw = random.Random(seed)
    for tokens_and_seed in range(cases):
        tokens, case_seed = TOKENS[tokens_and_seed % len(TOKENS)], tokens_and_seed // len(TOKENS)
        (case,) = synthetic.cases((tokens,), splits=(2, 4))
        case = replace(case, workload=replace(case.workload, seed=case_seed))
        (trial,) = synthetic.Builder(passes=1, pairs=1).trials([case])
        record = to_record(trial)
        assert record["case_id"] == case_id(case.workload, case.link)
        count = samples // passes
        for pass_index in range(passes):
            for place, m in enumerate(record["measurements"]):
                exact_s = m["samples_s"][0]
                m["samples_s"] = [exact_s * (1 + 0.003 * draw.gauss(0, 1)) for _ in range(count)]
                m["places"] = list(range(place, 5 * count, 5))
                m["rounds"] = [index // 4 for index in range(count)]
            yield {**record, "pass_index": pass_index}


def make(folder: Path, cases: int, passes: int, samples: int, seed: int) -> Path:
    """A run folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (folder / "results.jsonl").open("w") as file:
        for record in records(cases, passes, samples, seed):
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
    (folder / "config.resolved.yaml").write_text(
        CONFIG.format(seeds=list(range(-(-cases // len(TOKENS)))), tokens=list(TOKENS), passes=passes)
    )
    (folder / "environment.json").write_text("{}")
    return folder


def timed(*arguments: str) -> None:
    """In a process of its own: its peak memory is what the verb took."""
    started, used_s = time.monotonic(), _cpu_s()
    subprocess.run([sys.executable, "-m", "bench.cli", *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    taken_s = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    used_s = _cpu_s() - used_s
    print(
        f"bench {' '.join(arguments)}: {taken_s:.1f} s ({used_s:.1f} s of CPUs), peak {peak:.2f} GiB so far", flush=True
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--report-cases", type=int, default=1_000)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    sizes = args.passes, args.samples
    one = make(args.folder / "report_benchmark", args.report_cases, *sizes, seed=1)
    timed("report", str(one))
    base, new = (make(args.folder / f"compare_benchmark_{seed}", args.cases, *sizes, seed=seed) for seed in (1, 2))
    for run in (base, new):
        print(f"{run}: {(run / 'results.jsonl').stat().st_size / 1e6:.0f} MB", flush=True)
    timed("compare", str(base), str(new))
    timed("compare", str(base), str(new), "--json")
    timed("compare", str(base))
    for run in (one, base, new):
        shutil.rmtree(run)


if __name__ == "__main__":
    main()
