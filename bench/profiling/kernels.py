"""What a profile by Nsight Compute leaves in its folder and a report shows: kernels by stage. Torch-free."""

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter

from bench.cases import Case
from bench.profiling import kept_file
from moe_impl.options import Variant

KERNELS = "kernels.json"
VERSION = 1


@dataclass(frozen=True)
class Kernel:
    """One launch, alone on the GPU. Shares are fractions of a peak at the clocks of the moment; None = not counted."""

    name: str
    stage: str
    layer: int
    ubatch: int
    duration_s: float
    registers_per_thread: int
    dram: float | None
    """Of DRAM bandwidth."""
    tensor: float | None
    """Of cycles in which the tensor pipe is active."""
    sm: float | None
    """Of the SMs' throughput: that of their busiest pipe."""
    occupancy: float | None
    """Achieved: active warps, of the most that an SM holds, while it has any."""


@dataclass(frozen=True)
class Alike:
    """The launches of one kernel in one stage."""

    stage: str
    name: str
    launches: tuple[Kernel, ...]

    @property
    def total_s(self) -> float:
        return sum(one.duration_s for one in self.launches)

    @property
    def duration_s(self) -> float:
        return median(one.duration_s for one in self.launches)

    @property
    def registers_per_thread(self) -> int:
        return max(one.registers_per_thread for one in self.launches)

    def share(self, field: str) -> float | None:
        """Median over launches of ``dram``, ``tensor``, ``sm`` or ``occupancy``."""
        known = [value for one in self.launches if (value := getattr(one, field)) is not None]
        return median(known) if known else None


@dataclass(frozen=True)
class VariantKernels:
    """Of one layer of one iteration."""

    variant: Variant
    kernels: tuple[Kernel, ...]

    @property
    def alike(self) -> tuple[Alike, ...]:
        """In the order of their first launch."""
        groups: dict[tuple[str, str], list[Kernel]] = {}
        for one in self.kernels:
            groups.setdefault((one.stage, one.name), []).append(one)
        return tuple(Alike(stage, name, tuple(launches)) for (stage, name), launches in groups.items())


@dataclass(frozen=True)
class KernelProfile:
    """A profile of one case."""

    case: Case
    command: str
    """Makes it again."""
    raw: str | None
    """ncu's own report, in the same folder."""
    variants: tuple[VariantKernels, ...]
    version: int = VERSION
    folder: str = ""
    """Its folder's name; told by where it is read."""


_PROFILE = TypeAdapter(KernelProfile)


def write(profile: KernelProfile, folder: Path) -> KernelProfile:
    """Leave it in ``folder``; returns it as it will be read."""
    (folder / KERNELS).write_bytes(_PROFILE.dump_json(profile))
    return replace(profile, folder=folder.name)


def load(folder: Path) -> KernelProfile:
    """What :func:`write` left.

    Raises:
        BenchError: it is not there, of another version, or no such file.
    """
    profile = kept_file.read(folder / KERNELS, _PROFILE, VERSION, "kernels")
    return replace(profile, folder=folder.name)


def kernel_profiles(timelines: Path) -> tuple[tuple[KernelProfile, ...], tuple[str, ...]]:
    """A run's, by folder name, and what is wrong with those that cannot be read.

    Args:
        timelines: the run's folder of profiles.
    """
    return kept_file.all_readable((path.parent for path in timelines.glob(f"*/{KERNELS}")), load)
