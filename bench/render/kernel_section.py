"""The report's tables of what Nsight Compute says of kernels: one a variant, a line for each kernel of a stage."""

from bench.profiling.kept import TIMELINES
from bench.profiling.kernels import KERNELS, Alike, KernelProfile
from bench.render import words
from bench.render.tables import Table, unit_for

SHARES = {"DRAM": "dram", "tensor pipe": "tensor", "SM": "sm", "occupancy": "occupancy"}
"""Column -> share."""
LONGEST_NAME = 48
NOTE = (
    "Nsight Compute runs one kernel at a time and several times over: nothing overlaps, and caches are flushed before "
    "each. Medians over launches, at the clocks of the moment; DRAM, tensor pipe and SM are shares of their peak, "
    "occupancy is achieved."
)


def title(profile: KernelProfile) -> str:
    """What was run, without the variants, which the tables name."""
    work = profile.case.workload
    return f"{work.precision} · {words.shape(work)} · {words.count(work.tokens)} tokens · kernels by Nsight Compute"


def tables(profile: KernelProfile) -> list[Table]:
    """One a variant."""
    unit = unit_for(one.duration_s for found in profile.variants for one in found.alike)

    def cells(one: Alike) -> tuple[str, ...]:
        return (
            one.stage,
            words.count(len(one.launches)),
            unit.text(one.duration_s),
            *(words.percent(one.share(field)) for field in SHARES.values()),
            str(one.registers_per_thread),
            one.name if len(one.name) <= LONGEST_NAME else f"{one.name[: LONGEST_NAME - 1]}…",
        )

    return [
        Table(
            f"{found.variant.role} {found.variant.label}: kernels of one layer",
            ("stage", "launches", f"{unit.name} each", *SHARES, "registers", "kernel"),
            tuple(cells(one) for one in found.alike),
            (NOTE,) if found is profile.variants[-1] else (),
        )
        for found in profile.variants
    ]


def about(profile: KernelProfile) -> str:
    """Where it is."""
    raw = f"{profile.raw} and {KERNELS}" if profile.raw else KERNELS
    return f"Profiled with ncu; {raw} in {TIMELINES}/{profile.folder}."
