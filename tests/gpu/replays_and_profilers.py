"""Captured runs and profilers that come and go in one process: the last pass of a sweep with ``launch: graph``.

python3 replays_and_profilers.py    fails where a replay crashes, goes unseen, or no longer writes what it did
"""

import torch

from bench.measure.cuda_timer import CudaEventTimer
from bench.measure.device_span import device_works

CASES = 3
"""Each captures a graph of its own and has its cross-check, as the cases of a pass do."""


def main() -> None:
    timer, kept = CudaEventTimer(), []
    for _ in range(CASES):
        x = torch.randn(1024, 1024, device="cuda", dtype=torch.bfloat16)
        y, graph = torch.empty_like(x), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            torch.mm(x, x, out=y)
        graph.replay()
        expected = y.clone()  # an eager product may be another algorithm's, with other bits
        kept.append((x, graph, y, expected))  # x, too: graphs do not keep alive what they read
        found = device_works({"eager": lambda x=x, y=y: torch.mm(x, x, out=y), "graph": graph.replay}, timer)
        assert {name: work.launches for name, work in found.items()} == {"eager": 1, "graph": 1}, found
        for _, graph, y, expected in kept:
            y.zero_()
            graph.replay()
            assert torch.equal(y, expected), "a replay after a profiler writes something else"


if __name__ == "__main__":
    main()
