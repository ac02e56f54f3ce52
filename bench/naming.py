"""How people name a case of a sweep (the shortest ``--filter`` text that tells it from the others), and a machine.

Torch-free.
"""

from collections.abc import Collection, Sequence
from dataclasses import fields

from bench.cases import Case
from bench.filters import CASE_KEYS
from bench.identity import default
from moe_impl.options import Machine, Workload

ALWAYS = ("tokens",)


def case_names(cases: Sequence[Case], always: Collection[str] = ALWAYS) -> dict[str, str]:
    """case_id -> ``tokens=1024,precision=bf16``: the fields of ``always``, and those in which ``cases`` differ."""
    varies = varying(cases)
    told = {key: read for key, read in CASE_KEYS.items() if key in always or key in varies}
    return {case.case_id: ",".join(f"{key}={read(case)}" for key, read in told.items()) for case in cases}


def varying(cases: Sequence[Case]) -> list[str]:
    """Case fields in which ``cases`` differ; not one that only follows another, such as a precision's own payload."""
    follows = {
        spec.name
        for spec in fields(Workload)
        if "default_of" in spec.metadata
        and all(getattr(case.workload, spec.name) == default(spec, case.workload) for case in cases)
    }
    return [key for key, read in CASE_KEYS.items() if key not in follows and len({read(case) for case in cases}) > 1]


def machine_name(machine: Machine) -> str:
    """``NVIDIA H100 80GB HBM3``, or what each of several ranks runs on."""
    return machine.name if machine.ranks == 1 else f"{machine.ranks} ranks, each on {machine.name}"
