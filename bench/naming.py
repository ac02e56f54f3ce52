"""How people name a case of a sweep (the shortest ``--filter`` text that tells it from the others), and a machine.

Torch-free.
"""

from collections.abc import Collection, Sequence
from dataclasses import fields

from bench.cases import Case
from bench.filters import CASE_KEYS, VARIANT_KEYS
from bench.identity import default
from moe_impl.options import Machine, Variant, Workload

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


def terms_for(chosen: Collection[Case], cases: Collection[Case]) -> str:
    """The ``--filter`` text that keeps ``chosen`` of ``cases``, at every token count; empty where it is all of them.

    Args:
        chosen: with the overlapped variants that are meant.
        cases: of the whole sweep, with all their variants.
    """
    terms: list[str] = []
    kept = list(cases)
    for key in varying(list(cases)):
        if key != "tokens":
            values = dict.fromkeys(map(CASE_KEYS[key], chosen))
            if len(values) < len(set(map(CASE_KEYS[key], kept))):
                terms += (f"{key}={value}" for value in values)
                kept = [case for case in kept if CASE_KEYS[key](case) in values]
    wanted, there = _overlapped(chosen), _overlapped(kept)
    for name, spelled in VARIANT_KEYS.items():
        spellings = dict.fromkeys(map(spelled, wanted))
        if len(spellings) < len(set(map(spelled, there))) and "" not in spellings:  # an empty one cannot be named
            terms += (f"{name}={spelling}" for spelling in spellings)
            there = [variant for variant in there if spelled(variant) in spellings]
    return ",".join(terms)


def _overlapped(cases: Collection[Case]) -> list[Variant]:
    return [variant for case in cases for variant in case.variants if variant.role == "T2o"]


def machine_name(machine: Machine) -> str:
    """``NVIDIA H100 80GB HBM3``, or what each of several ranks runs on."""
    return machine.name if machine.ranks == 1 else f"{machine.ranks} ranks, each on {machine.name}"
