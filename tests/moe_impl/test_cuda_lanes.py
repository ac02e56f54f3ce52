"""Two lanes without a GPU: which stream is current when, what waits for what, and how few calls of CUDA that takes."""

import gc
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
from plain_schedule import build

from moe_impl.options import Order, Variant
from moe_impl.overlap import cuda_lanes
from moe_impl.overlap.cuda_lanes import _Issue
from moe_impl.overlap.driver import Run, run_inline
from moe_impl.overlap.schedule import ORDERS
from moe_impl.overlap.threads import run_threads
from moe_impl.stages import Stage
from moe_impl.state import UbatchState
from moe_impl.variant_run import lanes_for


class Stream:
    """Counts what is queued on it, and remembers up to where it waits for another."""

    device = torch.device("cuda")

    def __init__(self, name: str) -> None:
        self.name = name
        self.queued = 0
        self.seen: dict[str, int] = {}
        """Other stream -> how much of what is queued there has run before what is queued here from now on."""


class Event:
    recorded: Stream | None = None
    queued = 0

    def record(self, stream: Stream) -> None:
        self.recorded, self.queued = stream, stream.queued

    def wait(self, stream: Stream) -> None:
        assert self.recorded is not None
        other = self.recorded.name
        stream.seen[other] = max(stream.seen.get(other, 0), self.queued)


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: names.append(stream.name))
    return names


@pytest.fixture
def comm(monkeypatch: pytest.MonkeyPatch) -> Stream:
    stream = Stream("comm")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(cuda_lanes, "comm_stream", lambda device, priority: stream)
    return stream


def micro_batches(num_ubatches: int) -> list[UbatchState]:
    return [UbatchState(slice(ubatch, ubatch + 1), torch.zeros(1, 1)) for ubatch in range(num_ubatches)]


def test_a_comm_op_that_raises_leaves_the_compute_stream_current(current: list[str]) -> None:
    event, comm = Event(), Stream("comm")
    issue = _Issue(comm, [], event, comm, Stream("compute"))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="made up"), issue:
        raise RuntimeError("made up")
    assert current == ["comm", "compute"]
    assert event.recorded is None


def test_a_comm_op_that_ends_well_does_too_and_records(current: list[str]) -> None:
    event, comm = Event(), Stream("comm")
    with _Issue(comm, [], event, comm, Stream("compute")):  # type: ignore[arg-type]
        pass
    assert current == ["comm", "compute"]
    assert event.recorded is comm


@pytest.mark.parametrize("drive", [run_inline, run_threads])
@pytest.mark.parametrize("order", ORDERS)
def test_every_op_finds_its_own_stream_current_and_what_it_reads_done(
    order: Order, drive: Callable[[Run], None], comm: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stream its thread begins with, and with no more switches than the lanes need."""
    schedule = build(2, 3, order)
    compute = Stream("compute")
    streams = {"compute": compute, "comm": comm}
    now: dict[int, str] = {}
    switches: list[str] = []

    def set_stream(stream: Stream) -> None:
        now[threading.get_ident()] = stream.name
        switches.append(stream.name)

    monkeypatch.setattr(torch.cuda, "set_stream", set_stream)
    issued: list[int] = []
    places: dict[int, int] = {}

    def body(state: UbatchState, layer: int) -> None:
        position = issued[-1]
        op, stream = schedule.ops[position], streams[schedule.ops[position].lane]
        assert now[threading.get_ident()] == op.lane
        stream.queued += 1
        places[position] = stream.queued
        for before in op.after:
            lane = schedule.ops[before].lane
            assert lane == op.lane or places[before] <= stream.seen.get(lane, 0), f"{op} does not wait for its inputs"

    lanes = cuda_lanes.StreamLanes(schedule, compute)  # type: ignore[arg-type]
    drive(Run(schedule, dict.fromkeys(Stage, body), micro_batches(3), lanes, issued.append))
    assert issued == list(range(len(schedule.ops)))
    assert len(switches) == schedule.num_ubatches + 2 * len(schedule.lanes["comm"])
    assert switches[-1] == "compute"


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
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("compute"))
    monkeypatch.setattr(cuda_lanes, "comm_stream", lambda device, priority: asked.append(priority) or Stream("comm"))
    for variant in (Variant("torch"), Variant("torch", engine="threads", comm_priority="default")):
        lanes_for(variant, build(1, 2, variant.order), torch.device("cuda"))
    assert asked == ["high", "default"]


@pytest.mark.parametrize("order", ORDERS)
def test_a_raise_at_any_op_of_streams_ends_the_run_on_the_compute_stream_and_frees_the_micro_batches(
    order: Order, current: list[str], comm: Stream
) -> None:
    schedule = build(1, 2, order)
    lanes = cuda_lanes.StreamLanes(schedule, Stream("compute"))  # type: ignore[arg-type]
    for culprit in range(len(schedule.ops)):
        issued: list[int] = []
        states = micro_batches(2)
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
