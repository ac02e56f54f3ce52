"""How long a schedule takes if each resource does one thing at a time. Torch-free; no tensor, no clock.

The bound behind ``ideal_s``: two resources, compute and comm, each FIFO in issue order, and the host, which an op may
hold until it starts (receive ``exact``). With ``compute_rate`` < 1 the compute lane runs slower while comm is busy, as
it does when comm CTAs own part of the SMs (``ideal_sm_s``).
"""

import math
from collections.abc import Sequence

from moe_impl.overlap.schedule import Schedule


def makespan_s(schedule: Schedule, op_s: Sequence[float], compute_rate: float = 1.0) -> float:
    """Seconds from the first start to the last end.

    Args:
        schedule: the ops in issue order.
        op_s: seconds of each op when nothing runs beside it, in the schedule's order.
        compute_rate: speed of compute while comm is busy, in (0, 1].

    Raises:
        ValueError: as many seconds as ops are needed, none negative or not finite, and a rate in (0, 1].
    """
    ops, none = schedule.ops, len(schedule.ops)  # the position of no op
    if len(op_s) != none:
        raise ValueError(f"{len(op_s)} durations for {none} ops")
    for op, seconds in zip(ops, op_s, strict=True):
        if not 0 <= seconds < math.inf:  # such an op would never end
            raise ValueError(f"{op} cannot take {seconds} seconds")
    if not 0 < compute_rate <= 1:
        raise ValueError(f"compute_rate must lie in (0, 1], got {compute_rate}")
    # plain comparisons: a report asks for thousands of makespans
    computes, comms = (iter((*schedule.lanes.get(lane, ()), none)) for lane in ("compute", "comm"))
    holding = iter((*sorted(schedule.host_waits), none))  # ops that hold the host, until they start
    compute, comm, holder = next(computes), next(comms), next(holding)
    left = list(op_s)
    done = [False] * none
    is_done = done.__getitem__
    now = 0.0
    while compute < none or comm < none:
        computing = compute < none and all(map(is_done, ops[compute].after))
        moving = comm < none and all(map(is_done, ops[comm].after))
        while holder < none and (done[holder] or (computing and holder == compute) or (moving and holder == comm)):
            holder = next(holding)
        computing, moving = computing and compute <= holder, moving and comm <= holder
        if not (computing or moving):
            raise ValueError("the schedule waits for itself: an op depends on one issued later")
        rate = compute_rate if moving else 1.0
        step = min(left[compute] / rate if computing else math.inf, left[comm] if moving else math.inf)
        now += step
        if computing:
            left[compute] -= step * rate
            if left[compute] <= 1e-15 + 1e-9 * op_s[compute]:
                done[compute] = True
                compute = next(computes)
        if moving:
            left[comm] -= step
            if left[comm] <= 1e-15 + 1e-9 * op_s[comm]:
                done[comm] = True
                comm = next(comms)
    return now
