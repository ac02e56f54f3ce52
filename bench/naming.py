"""How people name a case of a sweep (the shortest ``--filter`` text that tells it from the others), and a machine.

Torch-free.
"""

from collections.abc import Collection, Sequence

from bench.cases import Case
from bench.filters import CASE_KEYS
from moe_impl.options import Machine

ALWAYS = ("tokens",)


def case_names(cases: Sequence[Case], always: Collection[str] = ALWAYS) -> dict[str, str]:
    """case_id -> ``tokens=1024,precision=bf16``: the fields of ``always``, and those in which ``cases`` differ."""
    told = {key: read for key, read in CASE_KEYS.items() if key in always or len({read(case) for case in cases}) > 1}
    return {case.case_id: ",".join(f"{key}={read(case)}" for key, read in told.items()) for case in cases}


def machine_name(machine: Machine) -> str:
    """``NVIDIA H100 80GB HBM3``, or what each of several ranks runs on."""
    return machine.name if machine.ranks == 1 else f"{machine.ranks} ranks, each on {machine.name}"
