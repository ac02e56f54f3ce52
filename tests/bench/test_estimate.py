"""What a plan assumes of a sweep's duration."""

import pytest
from synthetic import H100, cases, variant, workload

from bench import planning
from bench.estimate import (
    ASSUMED,
    ASSUMED_COLLECTIVE_BYTES_PER_S,
    ASSUMED_HOST_LINK_BYTES_PER_S,
    CASE_OVERHEAD_S,
    case_s,
    iteration_s,
)
from bench.settings import MeasureSettings, SampleLimits
from moe_impl import costs
from moe_impl.links import COLLECTIVE, HOST_LINK, LOCAL
from moe_impl.options import Link


@pytest.mark.parametrize("split_factor", [1, 2, 4])
@pytest.mark.parametrize(
    ("link", "bytes_per_s"),
    [(HOST_LINK, ASSUMED_HOST_LINK_BYTES_PER_S), (COLLECTIVE, ASSUMED_COLLECTIVE_BYTES_PER_S)],
    ids=["host_link", "collective"],
)
def test_a_measured_link_is_assumed_to_take_its_bytes_at_the_known_rate_both_ways(
    link: Link, bytes_per_s: float, split_factor: int
) -> None:
    work, one = workload(tokens=4096), variant(split_factor=split_factor)
    found = iteration_s(work, link, one, ASSUMED["cuda"]) - iteration_s(work, LOCAL, one, ASSUMED["cuda"])
    num_bytes = costs.transfer_bytes(work, "dispatch") + costs.transfer_bytes(work, "combine")
    expected = work.layers * num_bytes / bytes_per_s
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_case_lasts_its_rounds_or_with_a_rule_its_most_samples() -> None:
    iterations_s = [0.01, 0.02, 0.03]
    fixed = MeasureSettings(rounds=6, round_min_s=0.5, warm_up_s=0.1)
    assert case_s(iterations_s, fixed) == pytest.approx(CASE_OVERHEAD_S + 3 * 0.1 + 6 * 0.5)
    ruled = MeasureSettings(samples=SampleLimits(10, 50), stop_when=0.01, warm_up_s=0.1)
    assert case_s(iterations_s, ruled) == pytest.approx(CASE_OVERHEAD_S + 3 * 0.1 + 50 * 0.06)


def test_a_second_t1_is_part_of_the_plan() -> None:
    once, twice = (
        planning.make_plan(cases([8192], layers=8), MeasureSettings(passes=1, rounds=50, round_min_s=0.0, aa=aa), H100)
        for aa in (False, True)
    )
    assert once.estimated_s < twice.estimated_s
