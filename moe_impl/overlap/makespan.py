"""How long a schedule takes if each resource does one thing at a time. Torch-free; no tensor, no clock.

The bound behind ``ideal_s``: two resources, compute and comm, each FIFO in issue order, and the host, which an op may
hold until it starts (receive ``exact``). With ``compute_rate`` < 1 the compute lane runs slower while comm is busy, as
it does when comm CTAs own part of the SMs (``ideal_sm_s``).
"""

import math
from collections.abc import Sequence

from moe_impl.overlap.schedule import Schedule

LANES = ("compute", "comm")


def makespan_s(schedule: Schedule, op_s: Sequence[float], compute_rate: float = 1.0) -> float:
    """Seconds from the first start to the last end.

    Args:
        schedule: the ops in issue order.
        op_s: seconds of each op when nothing runs beside it, in the schedule's order.
        compute_rate: speed of compute while comm is busy, in (0, 1].

    Raises:
        ValueError: as many seconds as ops are needed, none negative or not finite, and a rate in (0, 1].
    """
    if len(op_s) != len(schedule.ops):
        raise ValueError(f"{len(op_s)} durations for {len(schedule.ops)} ops")
    for op, seconds in zip(schedule.ops, op_s, strict=True):
        if not (math.isfinite(seconds) and seconds >= 0):  # such an op would never end
            raise ValueError(f"{op} cannot take {seconds} seconds")
    if not 0 < compute_rate <= 1:
        raise ValueError(f"compute_rate must lie in (0, 1], got {compute_rate}")
    queues = {lane: [i for i, op in enumerate(schedule.ops) if op.lane == lane] for lane in LANES}
    left = list(op_s)
    done = [False] * len(left)
    holding = sorted(schedule.host_waits)  # ops that hold the host, until they start
    now = 0.0
    while any(queues.values()):
        ready = {queue[0] for queue in queues.values() if queue and all(done[i] for i in schedule.ops[queue[0]].after)}
        while holding and (holding[0] in ready or done[holding[0]]):
            holding.pop(0)
        issued = holding[0] if holding else len(left)
        running = {lane: q[0] for lane, q in queues.items() if q and q[0] in ready and q[0] <= issued}
        if not running:
            raise ValueError("the schedule waits for itself: an op depends on one issued later")
        rates = {lane: compute_rate if lane == "compute" and "comm" in running else 1.0 for lane in running}
        step = min(left[i] / rates[lane] for lane, i in running.items())
        now += step
        for lane, i in running.items():
            left[i] -= step * rates[lane]
            if left[i] <= 1e-15 + 1e-9 * op_s[i]:
                done[i] = True
                queues[lane].pop(0)
    return now
