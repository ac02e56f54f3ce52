"""A copy of 2 GiB timed by cuda-bench (NVBench), as a process: what NVBench does to the device ends with it.

python copy_by_cuda_bench.py RESULT.json
"""

import sys
from typing import Any

import torch
from cuda import bench

BYTES = 2**31


def copy(state: Any) -> None:
    """The benchmark; NVBench empties L2 before each sample and holds the stream until the copy is queued."""
    source = torch.ones(BYTES, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    torch.cuda.synchronize()

    def launch(launched: Any) -> None:
        with torch.cuda.stream(torch.cuda.ExternalStream(launched.get_stream().addressof())):
            target.copy_(source)

    state.exec(launch, batched=False)


if __name__ == "__main__":
    bench.register(copy)
    bench.run_all_benchmarks([sys.argv[0], "--json", sys.argv[1], "--min-samples", "50", "--timeout", "5"])
