"""About how long a sweep takes: the bill of every stage over an assumed machine. Order of magnitude, never a result."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from bench.settings import MeasureSettings
from moe_impl import costs
from moe_impl.options import Direction, Link, Variant, Workload
from moe_impl.overlap.schedule import chain
from moe_impl.split import as_run

PASS_OVERHEAD_S = 15.0
"""Starting a process, importing torch, compiling kernels."""
CASE_OVERHEAD_S = 2.0
"""Making weights, the oracle, the instrumented stage pass."""
LEAST_WARM_UP_CALLS = 3
LEAST_SAMPLES = 2
"""Of each variant in a round: its place in the order, and in the mirrored one."""

ASSUMED_HOST_LINK_BYTES_PER_S = 40e9
"""Each way with both at once: 32 to 48 GB/s were measured on an H100 (docs/DECISIONS.md). For ``bench plan`` alone."""
ASSUMED_COLLECTIVE_BYTES_PER_S = 200e9
"""Each way, the rows to the own rank included: what NCCL's all-to-all may reach over NVLink. Not measured here."""


@dataclass(frozen=True)
class Rates:
    """What a machine is assumed to reach; nothing here is measured."""

    flops_per_s: float
    hbm_bytes_per_s: float
    op_s: float
    """Least time of one stage: launching its kernels, or PyTorch's own overhead."""


ASSUMED: dict[str, Rates] = {
    "cuda": Rates(flops_per_s=400e12, hbm_bytes_per_s=2.5e12, op_s=20e-6),
    "cpu": Rates(flops_per_s=0.1e12, hbm_bytes_per_s=10e9, op_s=200e-6),
}
"""cuda: what grouped bf16 GEMMs and copies reach on an H100, rounded down; cpu: a few server cores."""


def iteration_s(workload: Workload, link: Link, variant: Variant, rates: Rates) -> float:
    """One iteration of all layers: per stage the larger of FLOP, byte and launch time, plus the link's time.

    Nothing is overlapped: an upper estimate for T2o, which overlaps part of it.
    """
    ubatches = as_run(variant, workload.tokens).split_factor
    bill = costs.layer_costs(workload, ubatches)
    layer_s = 0.0
    for stage in chain(workload):
        flops = sum(cost.flops for cost in bill if cost.stage == stage)
        num_bytes = sum(cost.hbm_bytes for cost in bill if cost.stage == stage)
        layer_s += max(flops / rates.flops_per_s, num_bytes / rates.hbm_bytes_per_s, ubatches * rates.op_s)
    layer_s += ubatches * sum(_transfer_s(workload, link, direction, ubatches) for direction in get_args(Direction))
    return workload.layers * layer_s


def _transfer_s(workload: Workload, link: Link, direction: Direction, ubatches: int) -> float:
    """One micro-batch's: the link's model, or what is assumed where it has none because it is measured."""
    num_bytes = int(costs.transfer_bytes(workload, direction, link.copies) / ubatches)
    if link.transport == "host_link":
        return num_bytes / ASSUMED_HOST_LINK_BYTES_PER_S
    if link.transport == "collective":
        return num_bytes / ASSUMED_COLLECTIVE_BYTES_PER_S
    return link.seconds(direction, num_bytes, workload.payload_dtype(direction))


def case_s(iterations_s: Iterable[float], settings: MeasureSettings) -> float:
    """One case in one pass at most, given one iteration of each of its variants; the case limit ends it anyway."""
    taken = list(iterations_s)
    warm_up_s = sum(max(settings.warm_up_s, LEAST_WARM_UP_CALLS * iteration) for iteration in taken)
    if settings.stop_when is None:
        samples_s = settings.rounds * max(settings.round_min_s, LEAST_SAMPLES * sum(taken))
    else:  # how few will do is known by measuring alone
        samples_s = settings.samples.max * sum(taken)
    return min(settings.case_limit_s, CASE_OVERHEAD_S + warm_up_s + samples_s)


def sweep_s(cases_s: Iterable[float], settings: MeasureSettings) -> float:
    """All passes of the cases that run here; 0 if none does."""
    pass_s = sum(cases_s)
    return settings.passes * (PASS_OVERHEAD_S + pass_s) if pass_s else 0.0
