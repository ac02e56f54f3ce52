"""Profiles written by hand: a few rows of work and ranges, in nanoseconds, with their launches."""

import re

from hypothesis import strategies as st

from bench.timeline.attribute import Rules
from bench.timeline.model import UNKNOWN, Calls, Names, Profile, Ranges, Work, columns

SAMPLE_RULES = Rules(
    ranges=tuple(
        map(
            re.compile,
            (
                r"^moe_tbo/iter(?P<iteration>\d+)$",
                r"^moe_tbo/layer(?P<layer>\d+)$",
                r"^moe_tbo/mb(?P<ubatch>\d+)$",
                r"^moe_tbo/(?P<stage>dispatch|gemm1|silu_mul|gemm2|combine)$",
            ),
        )
    )
)
"""How the ranges of tests/data/nsight_sample.sqlite are read."""

Op = tuple[str, int, int, int, int]
"""(stage, micro-batch, start, end, launch)."""
STAGES = ("gemm1", "dispatch", "combine", "merge")


def ops_of(*stages: str) -> st.SearchStrategy[list[Op]]:
    """Any ops of these stages and two micro-batches, launched before they start."""
    drawn = st.tuples(
        st.sampled_from(stages), st.integers(0, 1), st.integers(0, 200), st.integers(1, 40), st.integers(0, 50)
    )
    ops = drawn.map(lambda o: (o[0], o[1], 1000 + o[2], 1000 + o[2] + o[3], 1000 + o[2] - o[4]))
    return st.lists(ops, min_size=1, max_size=20)


def profile(ops: list[Op], iteration: int = 0) -> Profile:
    """One iteration: each op's launch takes 1 ns on thread 1, in ranges as moe_impl.annotate writes them."""
    names, work, ranges = Names(), [], []
    domain = names.number("moe_tbo")
    streams = {"dispatch": 2, "combine": 2}
    for stage, ubatch, start, end, launch in ops:
        name = names.number(f"{stage} layer 0 ubatch {ubatch}")
        work.append(
            (start, end, streams.get(stage, 1), 0, names.number(f"{stage}_kernel"), -1, launch, launch + 1, 1, UNKNOWN)
        )
        ranges.append((launch, launch + 2, 1, name, domain, UNKNOWN, UNKNOWN))
    begin, end = min(row[6] for row in work) - 1, max(row[7] for row in work) + 2
    ranges.append((begin, end, 1, names.number(f"iteration {iteration} streams x2"), domain, UNKNOWN, UNKNOWN))
    return Profile(
        "by hand", names, Work(*columns(sorted(work), 10)), Ranges(*columns(sorted(ranges), 7)), Calls(*columns([], 4))
    )


def joined(*runs: tuple[str, int]) -> Profile:
    """One profile of several named runs, each one iteration of one gemm1 of so many nanoseconds."""
    names, work, ranges = Names(), [], []
    domain, gemm = names.number("moe_tbo"), names.number("gemm1 layer 0 ubatch 0")
    for index, (name, length) in enumerate(runs):
        at = 1000 * (index + 1)
        work.append((at + 100, at + 100 + length, 1, 0, gemm, -1, at, at + 1, 1, UNKNOWN))
        ranges.append((at, at + 2, 1, gemm, domain, UNKNOWN, UNKNOWN))
        ranges.append((at - 1, at + 3, 1, names.number(f"iteration 0 {name}"), domain, UNKNOWN, UNKNOWN))
    return Profile(
        "by hand", names, Work(*columns(work, 10)), Ranges(*columns(sorted(ranges), 7)), Calls(*columns([], 4))
    )
