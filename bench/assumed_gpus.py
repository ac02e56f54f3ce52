"""GPUs that ``bench plan --gpu`` plans for where none is at hand: what their makers publish, nothing probed."""

from moe_impl.options import Machine

GIB = 2**30
TORCH, TRITON, HUMMING = "2.13.0", "3.9.0", "0.1.19"
"""As if all that a backend may want were installed."""


def _gpu(name: str, memory_gib: int, sm_count: int, capability: tuple[int, int]) -> Machine:
    return Machine("cuda", name, memory_gib * GIB, sm_count, capability, TORCH, TRITON, HUMMING)


ASSUMED_GPUS = {
    "h100": _gpu("NVIDIA H100 80GB HBM3", 79, 132, (9, 0)),
    "h200": _gpu("NVIDIA H200", 140, 132, (9, 0)),
    "b200": _gpu("NVIDIA B200", 178, 148, (10, 0)),
    "rtx-pro-6000": _gpu("NVIDIA RTX PRO 6000 Blackwell", 95, 188, (12, 0)),
}
"""SM counts and compute capabilities of NVIDIA's data sheets; memory as a driver shows it, rounded down."""
