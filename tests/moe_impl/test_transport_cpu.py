"""Links on a CPU: rows arrive, and a paced one takes alpha + bytes / bandwidth and never less."""

import time
from dataclasses import replace

import pytest
import torch

from moe_impl import rows
from moe_impl.options import Link, LinkTime, Workload
from moe_impl.shapes import ModelShape
from moe_impl.transport.base import transport
from moe_impl.transport.cpu_rows import LocalCpu, PacedCpu

H = 128
WORK = Workload(ModelShape(H, 64, 4, 2), ep_size=2, layers=1, tokens=4, precision="bf16")
CPU = torch.device("cpu")
LINK = Link("paced", 4, (LinkTime("dispatch", 2e-3, 1e6), LinkTime("combine", 1e-3, 4e6)))


@pytest.fixture
def sent() -> rows.SentRows:
    ids = torch.tensor([[0, 1], [0, 3], [2, 3], [1, 2]], dtype=torch.int32)
    return rows.plan_rows(ids, torch.ones(4, 2), 4, 2)


@pytest.mark.parametrize("link", [Link("local"), LINK])
def test_counted_rows_arrive_and_the_rest_stays(link: Link, sent: rows.SentRows) -> None:
    over, used = transport(link, WORK, CPU), int(sent.num_rows)
    assert used == 6 < sent.capacity
    x = torch.arange(4.0).bfloat16()[:, None].expand(4, H)
    received, returned = (torch.full((sent.capacity, H), 9.0).bfloat16() for _ in range(2))
    over.dispatch(x, sent, received)
    assert received[:, 0].tolist() == [0, 1, 3, 1, 2, 3, 9, 9]
    over.combine(received + 1, sent, returned)
    assert returned[:, 0].tolist() == [1, 2, 4, 2, 3, 4, 9, 9]


def test_a_link_names_its_transport() -> None:
    assert type(transport(Link("local"), WORK, CPU)) is LocalCpu
    assert type(transport(LINK, WORK, CPU)) is PacedCpu


def taken_s(link: Link, sent: rows.SentRows) -> list[float]:
    """Shortest of some dispatches, and of some combines: other load on the machine only lengthens them."""
    over = PacedCpu(link, WORK)
    x, received, returned = (torch.zeros(n, H).bfloat16() for n in (4, sent.capacity, sent.capacity))
    shortest = []
    for send in (lambda: over.dispatch(x, sent, received), lambda: over.combine(received, sent, returned)):
        times = []
        for _ in range(5):
            started = time.perf_counter()
            send()
            times.append(time.perf_counter() - started)
        shortest.append(min(times))
    return shortest


def test_a_paced_transfer_takes_alpha_plus_bytes_over_bandwidth_and_never_less(sent: rows.SentRows) -> None:
    num_bytes = 6 * 2 * H
    expected_s = (2e-3 + num_bytes / 1e6, 1e-3 + num_bytes / 4e6)
    for found, expected in zip(taken_s(LINK, sent), expected_s, strict=True):
        assert expected <= found < expected + 1e-3


def test_a_link_that_counts_node_copies_charges_those_and_moves_all(sent: rows.SentRows) -> None:
    fewer = replace(sent, num_node_rows=torch.tensor([1], dtype=torch.int32))
    link = replace(LINK, copies="node")
    node_s, rank_s = taken_s(link, fewer)[0], taken_s(LINK, fewer)[0]
    one_row_s, six_rows_s = 2e-3 + 2 * H / 1e6, 2e-3 + 6 * 2 * H / 1e6
    assert one_row_s <= node_s < six_rows_s <= rank_s
    received = torch.full((sent.capacity, H), 9.0).bfloat16()
    PacedCpu(link, WORK).dispatch(torch.ones(4, H).bfloat16(), fewer, received)
    assert received[:, 0].tolist() == [1] * 6 + [9] * 2


def test_only_counted_rows_cost_time(sent: rows.SentRows) -> None:
    fewer = replace(sent, num_rows=torch.tensor([1], dtype=torch.int32))
    assert taken_s(LINK, fewer)[0] < 2e-3 + 2 * 2 * H / 1e6 + 1e-3
