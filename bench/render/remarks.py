"""What cases hold that their list does not show at a glance: nothing overlapped, or empty micro-batches. Text."""

from collections.abc import Sequence

from bench.cases import Case


def of(cases: Sequence[Case]) -> list[str]:
    """A line each, for people who may have meant otherwise; nothing of it is refused."""
    return [*_nothing_overlapped(cases), *_empty_micro_batches(cases)]


def _nothing_overlapped(cases: Sequence[Case]) -> list[str]:
    roles = {variant.role for case in cases for variant in case.variants}
    if "T2o" in roles:
        return []
    alone = " and ".join(sorted(roles))
    return [f"No overlapped variant is listed, {alone} alone: split_factor 1 and engine serial overlap nothing."]


def _empty_micro_batches(cases: Sequence[Case]) -> list[str]:
    """``Fewer tokens than micro-batches, some of them empty: streams x64 triton at 16 tokens.``"""
    tokens: dict[str, dict[int, None]] = {}
    for case in cases:
        for variant in case.variants:
            if variant.role == "T2o" and case.workload.tokens < variant.split_factor:
                tokens.setdefault(variant.label, {})[case.workload.tokens] = None
    if not tokens:
        return []
    told = "; ".join(f"{label} at {', '.join(map(str, found))} tokens" for label, found in tokens.items())
    return [f"Fewer tokens than micro-batches, some of them empty: {told}."]
