"""What the rest of an NVFP4 MoE layer costs beside its two grouped GEMMs: each row stage alone, and all of them.

    PYTHONPATH=. python tools/layer_cost.py [--model deepseek-v3] [--ep-size 8] [--rows 1024,4096,16384,32768]
                                            [--precision nvfp4-w4a16,nvfp4] [--experts triton,torch] [--repeats 20]

Rows are those of the grouped GEMMs, (row, expert) pairs, of tokens with K experts drawn evenly. Every figure is the
median of replays of a CUDA graph, L2 flushed before each. GB/s divide the bytes that `bench plan` itemises (costs.py:
each pair's row is read once, though a row of several pairs may come from L2) by that time; the ceiling is a copy's, and
a stage above it moves less than billed (a permute that only sorts, for a gemm1 that looks its rows up).
`layer adds` compares quantize, permute, gemm1, silu_mul, gemm2 and reduce, replayed as one graph, with gemm1 and gemm2
replayed as one; the goal is at most 10 %. merge belongs to combine's side of the layer and is shown alone, as is route.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

from bench.measure.ceilings import ceilings
from bench.measure.cuda_timer import CudaEventTimer
from bench.measure.l2 import L2Flush
from moe_impl import costs
from moe_impl.captured_run import Captured, capture_stream
from moe_impl.experts.base import ReadyExperts, backend
from moe_impl.inputs import draw_inputs
from moe_impl.layer import MoeStages
from moe_impl.options import Link, Workload
from moe_impl.shapes import PRESETS
from moe_impl.stages import COMM_STAGES, Stage
from moe_impl.state import UbatchState
from moe_impl.transport.base import transport
from moe_impl.weights import LayerWeights, draw_layer

GEMMS = (Stage.GEMM1, Stage.GEMM2)
LAYER = (Stage.QUANTIZE, Stage.PERMUTE, Stage.GEMM1, Stage.SILU_MUL, Stage.GEMM2, Stage.REDUCE)
SHOWN = (Stage.ROUTE, *LAYER, Stage.MERGE)

Issue = Callable[[], object]


def passed_stages(workload: Workload) -> list[Stage]:
    """The stages of a layer of this workload, in order."""
    skipped = {Stage.ATTENTION, Stage.SHARED} | (set() if workload.quantizes else {Stage.QUANTIZE})
    return [stage for stage in Stage if stage not in skipped]


def issues(stages: MoeStages, workload: Workload) -> dict[Stage, Issue]:
    """What issues each stage anew, on the state that it found when the layer ran once."""
    (state,) = stages.start([slice(0, workload.tokens)])

    def again(stage: Stage, found: UbatchState) -> Issue:
        return lambda: stages.bodies[stage](copy.copy(found), 0)

    made = {}
    for stage in passed_stages(workload):
        made[stage] = again(stage, copy.copy(state))
        stages.bodies[stage](state, 0)
    return made


def replayed_s(issue: Issue, flush: L2Flush, timer: CudaEventTimer, repeats: int) -> float:
    """Median seconds of the device's work for ``issue``, captured as a graph, from a cold L2."""
    graph = Captured(issue, capture_stream(torch.device("cuda", torch.cuda.current_device())))
    taken = []
    for _ in range(repeats + 2):
        flush()
        taken.append(timer.device_time_s(graph))
    torch.cuda.synchronize()  # no graph is given up while it runs
    return median(taken[2:])


def measured_s(
    workload: Workload, experts: ReadyExperts, flush: L2Flush, timer: CudaEventTimer, repeats: int
) -> dict[str, float]:
    """Seconds of every stage alone, of ``gemms`` and of ``layer``."""
    inputs = draw_inputs(workload, torch.device("cuda"))
    stages = MoeStages(workload, inputs, experts, transport(Link("local"), workload, inputs.x_TH.device))
    made = issues(stages, workload)
    torch.cuda.synchronize()

    def all_of(chosen: tuple[Stage, ...]) -> Issue:
        return lambda: [made[stage]() for stage in chosen if stage in made]

    asked = {stage.value: made[stage] for stage in made if stage not in COMM_STAGES}
    asked |= {"gemms": all_of(GEMMS), "layer": all_of(LAYER)}
    return {name: replayed_s(issue, flush, timer, repeats) for name, issue in asked.items()}


def line(workload: Workload, taken_s: dict[str, float], ceiling: float) -> str:
    """One row of the table."""
    bill: dict[str, float] = {}
    for cost in costs.layer_costs(workload, 1):
        bill[cost.stage.value] = bill.get(cost.stage.value, 0.0) + cost.hbm_bytes
    cells = [f"{workload.tokens * workload.model.top_k:6d}"]
    for stage in SHOWN:
        if stage.value not in taken_s:
            cells.append(f"{'-':>17}")
            continue
        rate = bill[stage.value] / taken_s[stage.value]
        cells.append(f"{taken_s[stage.value] * 1e6:7.1f} {rate / 1e9:5.0f} {100 * rate / ceiling:3.0f}")
    rest_s = sum(taken_s[stage.value] for stage in LAYER if stage not in GEMMS and stage.value in taken_s)
    gemms_s, layer_s = taken_s["gemms"], taken_s["layer"]
    cells += [f"{gemms_s * 1e6:7.1f}", f"{layer_s * 1e6:7.1f}", f"{100 * (layer_s / gemms_s - 1):5.1f} %"]
    return " | ".join([*cells, f"{100 * rest_s / gemms_s:5.1f} %"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deepseek-v3", choices=PRESETS)
    parser.add_argument("--ep-size", type=int, default=8)
    parser.add_argument("--rows", default="1024,4096,16384,32768")
    parser.add_argument("--precision", default="nvfp4-w4a16,nvfp4")
    parser.add_argument("--experts", default="triton")
    parser.add_argument("--repeats", type=int, default=20)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs a CUDA GPU")
    device, model = torch.device("cuda"), replace(PRESETS[asked.model], shared_experts=0)
    capability = torch.cuda.get_device_capability(device)
    timer = CudaEventTimer()
    ceiling = ceilings(device, timer.device_time_s)["copy_bytes_per_s"]
    assert ceiling is not None
    flush = L2Flush(device)
    print(f"{torch.cuda.get_device_name()}, {model.name} EP{asked.ep_size}, copy {ceiling / 1e9:.0f} GB/s")
    print("a stage: us, GB/s, % of the copy; gemms and layer: us; what the layer adds; the stages' own sum")
    for precision in asked.precision.split(","):
        weights: LayerWeights | None = None
        for name in asked.experts.split(","):
            print(f"\n{precision}, experts {name}\n  rows | " + " | ".join(f"{stage.value:>17}" for stage in SHOWN)
                  + " |   gemms |   layer |    adds |     sum")  # fmt: skip
            prepared = None
            for rows in map(int, asked.rows.split(",")):
                tokens = max(1, rows // model.top_k)
                workload = Workload(model, asked.ep_size, 1, tokens, precision, routing="uniform")
                experts = backend(name, precision, model.top_k / workload.local_experts, capability)
                weights = weights or draw_layer(workload, 0, device)
                prepared = prepared or experts.prepare(weights)
                taken_s = measured_s(workload, ReadyExperts(experts, [prepared]), flush, timer, asked.repeats)
                print(line(workload, taken_s, ceiling), flush=True)


if __name__ == "__main__":
    main()
