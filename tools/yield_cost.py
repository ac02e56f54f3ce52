"""Host time of one yield: an empty schedule with all its yields, less the same ops without any, over their number.

``threads``: a hand-over between micro-batches' threads. Without: each micro-batch's ops in one turn.
``streams``: a change of lane, which is where a schedule's yields are (dispatch, combine and what follows them): stream
switch, event record and wait. Without: the same ops on one lane. On a CPU there are no streams to switch.

    PYTHONPATH=. python tools/yield_cost.py [--layers 16] [--repeats 200]
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

from moe_impl.options import Variant, Workload
from moe_impl.overlap.driver import Run, run_inline
from moe_impl.overlap.lanes import Lanes, OneLane
from moe_impl.overlap.schedule import Schedule, for_variant
from moe_impl.shapes import ModelShape
from moe_impl.stages import Stage
from moe_impl.state import UbatchState
from moe_impl.variant_run import DRIVERS, lanes_for

WORKLOAD = Workload(ModelShape(64, 64, 8, 3), ep_size=4, layers=1, tokens=8, precision="bf16")


def without_yields(schedule: Schedule) -> Schedule:
    """The same ops, one micro-batch after the other, on one lane."""
    order = [position for chain in schedule.chains.values() for position in chain]
    place = {position: index for index, position in enumerate(order)}
    ops = [replace(op, after=tuple(place[before] for before in op.after)) for op in schedule.ops]
    return replace(schedule, ops=tuple(ops[position] for position in order))


def host_s(drive: Callable[[Run], None], schedule: Schedule, lanes: Lanes, repeats: int) -> list[float]:
    """Of each run with bodies that do nothing."""
    states = [UbatchState(slice(ubatch, ubatch + 1), torch.zeros(1, 1)) for ubatch in range(schedule.num_ubatches)]
    run = Run(schedule, dict.fromkeys(Stage, lambda state, layer: None), states, lanes, lambda position: None)
    found = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        drive(run)
        found.append(time.perf_counter() - began_s)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=200)
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for engine in ("threads", "streams"):
        variant = Variant("torch", engine=engine)
        schedule = for_variant(variant, replace(WORKLOAD, layers=asked.layers))
        lanes = lanes_for(variant, schedule, device)
        if engine == "threads":
            plain = without_yields(schedule)
            yields = len(schedule.hand_overs) - len(plain.hand_overs)
            with_s = host_s(DRIVERS[engine], schedule, OneLane(), asked.repeats)
            without_s = host_s(DRIVERS[engine], plain, OneLane(), asked.repeats)
        else:
            if isinstance(lanes, OneLane):
                print(f"{engine}: needs a CUDA GPU; on a CPU its ops are issued on one lane and a yield costs nothing")
                continue
            yields = sum(one.lane != other.lane for one, other in zip(schedule.ops, schedule.ops[1:], strict=False))
            with_s = host_s(run_inline, schedule, lanes, asked.repeats)
            without_s = host_s(run_inline, schedule, OneLane(), asked.repeats)
        middle_s, least_s = ((of(with_s) - of(without_s)) / yields for of in (median, min))
        print(
            f"{engine}: {middle_s * 1e6:.2f} us a yield (medians; {least_s * 1e6:.2f} between the fastest runs): "
            f"{yields} yields in {median(with_s) * 1e6:.0f} us, none in {median(without_s) * 1e6:.0f}, "
            f"{asked.repeats} runs on {device.type}"
        )


if __name__ == "__main__":
    main()
