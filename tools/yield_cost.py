"""Host time of one yield: an empty schedule with its N yields, less the same ops without any, over N.

A yield is where a micro-batch hands over to the next (``Schedule.hand_overs``): after each dispatch and each combine.

``threads``: one host thread wakes the next. Without: each micro-batch's ops in one turn.
``streams``: the issuing thread goes on with the next micro-batch, and work moves to the other lane and back: stream
switches, events recorded and waited for. Without: the same ops on one lane. On a CPU there are no streams to switch.

    PYTHONPATH=. python tools/yield_cost.py [--layers 16] [--repeats 200]
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch

from moe_impl.options import Variant, Workload
from moe_impl.overlap.driver import Run, run_inline
from moe_impl.overlap.lanes import Lanes, OneLane
from moe_impl.overlap.schedule import Schedule, for_variant
from moe_impl.overlap.threads import run_threads
from moe_impl.shapes import ModelShape
from moe_impl.stages import Stage
from moe_impl.state import UbatchState
from moe_impl.variant_run import lanes_for

WORKLOAD = Workload(ModelShape(64, 64, 8, 3), ep_size=4, layers=1, tokens=8, precision="bf16")
SETTLING_RUNS = 5
"""Untimed, before those that count: the first waits on an event, and starts of a thread, are slow."""


@dataclass(frozen=True)
class Cost:
    """What yields cost an engine."""

    engine: str
    yields: int
    """N: in the schedule with them, more than in that without."""
    with_s: list[float]
    """Host time of each run of the schedule with its yields."""
    without_s: list[float]

    def each_s(self, of: Callable[[list[float]], float]) -> float:
        """One yield, between the runs' median, or whatever ``of`` takes of them."""
        return (of(self.with_s) - of(self.without_s)) / self.yields

    def __str__(self) -> str:
        return (
            f"{self.engine}: {self.each_s(median) * 1e6:.2f} us a yield (medians; {self.each_s(min) * 1e6:.2f} between "
            f"the fastest runs): {self.yields} yields in {median(self.with_s) * 1e6:.0f} us, none in "
            f"{median(self.without_s) * 1e6:.0f}, {len(self.with_s)} runs"
        )


def without_yields(schedule: Schedule) -> Schedule:
    """The same ops, one micro-batch after the other; the turn still passes once to each."""
    order = [position for chain in schedule.chains.values() for position in chain]
    place = {position: index for index, position in enumerate(order)}
    ops = [replace(op, after=tuple(place[before] for before in op.after)) for op in schedule.ops]
    return replace(schedule, ops=tuple(ops[position] for position in order))


def host_s(drive: Callable[[Run], None], schedule: Schedule, lanes: Lanes, repeats: int) -> list[float]:
    """Of each run with bodies that do nothing. A GPU has done all that it was told before the next one begins."""
    states = [UbatchState(slice(ubatch, ubatch + 1), torch.zeros(1, 1)) for ubatch in range(schedule.num_ubatches)]
    run = Run(schedule, dict.fromkeys(Stage, lambda state, layer: None), states, lanes, lambda position: None)
    found = []
    for _ in range(SETTLING_RUNS + repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began_s = time.perf_counter()
        drive(run)
        found.append(time.perf_counter() - began_s)
    return found[SETTLING_RUNS:]


def of_threads(schedule: Schedule, repeats: int) -> Cost:
    """On one lane, for streams have their own price."""
    plain = without_yields(schedule)
    yields = len(schedule.hand_overs) - len(plain.hand_overs)
    with_s, without_s = (host_s(run_threads, one, OneLane(), repeats) for one in (schedule, plain))
    return Cost("threads", yields, with_s, without_s)


def of_streams(schedule: Schedule, lanes: Lanes, repeats: int) -> Cost:
    """Of all that lanes do at and between hand-overs."""
    with_s, without_s = (host_s(run_inline, schedule, one, repeats) for one in (lanes, OneLane()))
    return Cost("streams", len(schedule.hand_overs), with_s, without_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=200)
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    variant = Variant("torch", engine="streams")
    schedule = for_variant(variant, replace(WORKLOAD, layers=asked.layers))
    print(of_threads(schedule, asked.repeats))
    lanes = lanes_for(variant, schedule, device)
    if isinstance(lanes, OneLane):
        print("streams: needs a CUDA GPU; on a CPU its ops are issued on one lane and a yield costs nothing")
    else:
        print(of_streams(schedule, lanes, asked.repeats))


if __name__ == "__main__":
    main()
