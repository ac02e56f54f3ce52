"""What a plan assumes of a sweep's duration."""

import pytest
from synthetic import variant, workload

from bench.estimate import ASSUMED, ASSUMED_COLLECTIVE_BYTES_PER_S, ASSUMED_HOST_LINK_BYTES_PER_S, iteration_s
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
