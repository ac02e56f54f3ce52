"""Combinations that leave nothing to run on any machine; ``moe_impl.support`` says why.

A point of the product that cannot run is skipped, even if some value of it runs nowhere else: of two values that do not
go together, either may be the mistake. A file, or an entry of ``variants``, of which no point can run is one.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import fields

from bench.config.nodes import Node, Problems
from bench.config.spec import CaseAxes, VariantSpec
from moe_impl.options import Workload
from moe_impl.support import impossible_reason

MOST_TRIED = 2000
"""Points; a longer product of which none of so many can run is left to the sweep, which then refuses or skips."""


def refuse_what_runs_nowhere(root: Node, case: CaseAxes, variants: Sequence[VariantSpec], problems: Problems) -> None:
    """Note the whole case, else the entries, of which no point can run.

    Args:
        root: the file, of which ``case`` and ``variants`` were read without a problem.
        case: its axes.
        variants: its entries; one of defaults where it lists none.
    """
    assert isinstance(root.value, dict)
    reasons = [_why_nowhere(case, spec) for spec in variants]
    if all(reasons):
        text = "; ".join(dict.fromkeys(filter(None, reasons)))
        problems.add(root.value["case"], "case", f"no machine can run any of it: {text}")
        return
    for index, reason in enumerate(reasons):
        if reason is not None:
            entries = root.value["variants"].value
            assert isinstance(entries, list)
            problems.add(entries[index], f"variants[{index}]", f"no machine can run any of it: {reason}")


def _why_nowhere(case: CaseAxes, spec: VariantSpec) -> str | None:
    """The first point's reason, if no point can run."""
    first = None
    for tried, reason in enumerate(_reasons(case, spec)):
        if reason is None or tried == MOST_TRIED:
            return None
        first = first or reason
    return first


def _reasons(case: CaseAxes, spec: VariantSpec) -> Iterator[str | None]:
    names = [axis.name for axis in fields(case)]
    for values in itertools.product(*(getattr(case, name) for name in names)):
        point = dict(zip(names, values, strict=True))
        link = point.pop("link")
        workload = Workload(**point)
        for variant in spec.variants(workload.precision):
            yield impossible_reason(workload, link, variant.normalized())
