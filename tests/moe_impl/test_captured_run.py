"""What launch ``graph`` captures, and when, on a stand-in for CUDA's graphs: a CPU computes while it "captures".

That a replay computes the same on a GPU is tests/gpu/test_captured_runs.py's affair.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from small_layer import Built, workload

from moe_impl import captured_run
from moe_impl.captured_run import NO_OP, CapturedRun
from moe_impl.options import Variant
from moe_impl.overlap.schedule import Op

VARIANT = Variant("torch", launch="graph")


class Stream:
    device = torch.device("cpu")


class Graph:
    """Counts its replays. Its memory: two segments of its own."""

    made: list["Graph"]

    def __init__(self) -> None:
        self.replays = 0
        self.made.append(self)

    def pool(self) -> tuple[int, int]:
        return (0, len(self.made))

    def replay(self) -> None:
        self.replays += 1


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is asked of CUDA, in order."""
    asked: list[str] = []
    Graph.made = []

    @contextmanager
    def graph(made: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        asked.append("capture")
        yield
        asked.append("captured")

    def segments() -> list[dict[str, Any]]:
        of_others = {"segment_pool_id": (0, 0), "address": 1, "total_size": 7}
        own = [{"segment_pool_id": [0, len(Graph.made)], "address": at, "total_size": at} for at in (1000, 2000)]
        return [of_others, *own]

    class Filled:
        def __init__(self, of: Any) -> None:
            self.of = of.__cuda_array_interface__

        def fill_(self, byte: int) -> None:
            asked.append(f"{self.of['shape'][0]} bytes at {self.of['data'][0]} := {byte:#x}")

    for name, stand_in in {
        "CUDAGraph": Graph,
        "graph": graph,
        "Stream": lambda device: Stream(),
        "stream": lambda stream: nullcontext(),
        "current_stream": lambda device: Stream(),
        "synchronize": lambda: None,
        "memory_snapshot": segments,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(captured_run.torch, "as_tensor", lambda of, device: Filled(of))
    return asked


class Watched:
    """A run, and the ops that were issued for it."""

    def __init__(self, variant: Variant = VARIANT) -> None:
        self.built = Built(workload())
        self.issued: list[int] = []
        self.run = CapturedRun(variant, self.built.stages, self.built.inputs.x_TH, self.issued.append)
        self.ops = len(self.run.schedule.ops)


def test_one_iteration_is_issued_before_the_capture_and_none_by_a_replay(device: list[str]) -> None:
    watched = Watched()
    assert (watched.issued, device) == ([], [])
    first = watched.run()
    assert device[:2] == ["capture", "captured"]
    assert watched.issued == [*range(watched.ops)] * 2 + [NO_OP]
    assert watched.run() is first, "the graph's own memory"
    assert watched.issued[2 * watched.ops :] == [NO_OP] * 2
    assert [made.replays for made in Graph.made] == [2]


def test_a_run_made_ready_replays_at_its_first_call(device: list[str]) -> None:
    watched = Watched()
    watched.run.ready()
    watched.run.ready()
    assert len(Graph.made) == 1
    del watched.issued[:]
    watched.run()
    assert watched.issued == [NO_OP]


def test_a_graphs_own_memory_is_nan_before_its_first_replay_and_counted(device: list[str]) -> None:
    watched = Watched()
    assert watched.run.pool_bytes is None
    watched.run.ready()
    assert device[2:] == ["1000 bytes at 1000 := 0xff", "2000 bytes at 2000 := 0xff"]
    assert Graph.made[0].replays == 0
    assert watched.run.pool_bytes == 3000


@pytest.mark.parametrize("variant", [VARIANT, VARIANT.split_serial(), VARIANT.unsplit()], ids=lambda v: v.role)
def test_the_trace_is_that_of_an_eager_run_and_no_part_of_the_timed_graph(device: list[str], variant: Variant) -> None:
    watched = Watched(variant)
    final_TH, traces = watched.run.traced()
    [graph_of_trace] = Graph.made
    assert graph_of_trace.replays == 1
    assert watched.run.pool_bytes is None
    expected_TH, expected = watched.built.run(variant).traced()
    assert torch.equal(final_TH, expected_TH)
    for found, wanted in zip(traces, expected, strict=True):
        assert torch.equal(found.y_TH, wanted.y_TH)
        assert torch.equal(found.x_TH, wanted.x_TH)
    assert final_TH.data_ptr() != traces[-1].next_TH.data_ptr(), "copies: the graph's memory goes"


def test_contexts_around_ops_are_captured_with_them_in_a_graph_of_their_own(device: list[str]) -> None:
    watched = Watched()
    around: list[str] = []

    @contextmanager
    def noting(position: int, op: Op) -> Iterator[None]:
        around.append(device[-1])
        yield

    watched.run.ready()
    call = watched.run.under(noting)
    call()
    call()
    assert around == ["capture"] * watched.ops
    assert [made.replays for made in Graph.made] == [0, 2]
    watched.run(noting)
    assert len(around) == 2 * watched.ops
    assert [made.replays for made in Graph.made] == [0, 2, 1]
