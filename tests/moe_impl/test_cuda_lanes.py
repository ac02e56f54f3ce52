"""A stream op's context without a GPU: which stream is current after it."""

import gc
import weakref

import pytest
import torch
from plain_schedule import build

from moe_impl.options import Order, Variant
from moe_impl.overlap import cuda_lanes
from moe_impl.overlap.cuda_lanes import _Issue
from moe_impl.overlap.driver import Run, run_inline
from moe_impl.overlap.schedule import ORDERS
from moe_impl.stages import Stage
from moe_impl.state import UbatchState
from moe_impl.variant_run import lanes_for


class Stream:
    def __init__(self, name: str) -> None:
        self.name = name

    def wait_event(self, event: object) -> None:
        pass


class Compute(Stream):
    device = torch.device("cuda")

    def __init__(self) -> None:
        super().__init__("compute")


class Event:
    recorded: Stream | None = None

    def record(self, stream: Stream) -> None:
        self.recorded = stream


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: names.append(stream.name))
    return names


def test_a_comm_op_that_raises_leaves_the_compute_stream_current(current: list[str]) -> None:
    event = Event()
    issue = _Issue(Stream("comm"), [], event, Stream("compute"))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="made up"), issue:
        raise RuntimeError("made up")
    assert current == ["comm", "compute"]
    assert event.recorded is None


def test_a_comm_op_that_ends_well_switches_nothing_back(current: list[str]) -> None:
    event, comm = Event(), Stream("comm")
    with _Issue(comm, [], event, Stream("compute")):  # type: ignore[arg-type]
        pass
    assert current == ["comm"]
    assert event.recorded is comm


def test_the_communication_stream_has_the_priority_asked_for_and_is_one_for_all_variants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device, priority: made.append(priority) or Stream("comm"))
    device = torch.device("cuda", 77)  # its streams are nobody else's
    high, default = (cuda_lanes.comm_stream(device, asked) for asked in ("high", "default"))
    assert made == [-1, 0], "CUDA's lower number is the higher priority"
    assert cuda_lanes.comm_stream(device, "high") is high is not default


def test_lanes_communicate_with_the_variants_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Compute())
    monkeypatch.setattr(cuda_lanes, "comm_stream", lambda device, priority: asked.append(priority) or Stream("comm"))
    for variant in (Variant("torch"), Variant("torch", engine="threads", comm_priority="default")):
        lanes_for(variant, build(1, 2, variant.order), torch.device("cuda"))
    assert asked == ["high", "default"]


@pytest.mark.parametrize("order", ORDERS)
def test_a_raise_at_any_op_of_streams_ends_the_run_on_the_compute_stream_and_frees_the_micro_batches(
    order: Order, current: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Stream("compute")
    compute.device = torch.device("cpu")  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(cuda_lanes, "comm_stream", lambda device, priority: Stream("comm"))
    schedule = build(1, 2, order)
    lanes = cuda_lanes.StreamLanes(schedule, compute)  # type: ignore[arg-type]
    for culprit in range(len(schedule.ops)):
        issued: list[int] = []
        states = [UbatchState(slice(ubatch, ubatch + 1), torch.zeros(1, 1)) for ubatch in (0, 1)]
        held = [weakref.ref(state) for state in states]

        def body(state: UbatchState, layer: int, culprit: int = culprit, issued: list[int] = issued) -> None:
            if issued[-1] == culprit:
                raise RuntimeError("made up")

        gc.disable()  # what only the collector frees would hold GPU memory
        try:
            with pytest.raises(RuntimeError, match="made up"):
                run_inline(Run(schedule, dict.fromkeys(Stage, body), states, lanes, issued.append))
            del states
            assert not any(ref() for ref in held)
        finally:
            gc.enable()
        assert current[-1] == "compute"
        assert issued == list(range(culprit + 1))
