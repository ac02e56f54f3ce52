"""A stream op's context without a GPU: which stream is current after it."""

import pytest
import torch

from moe_impl.overlap.cuda_lanes import _Issue


class Stream:
    def __init__(self, name: str) -> None:
        self.name = name

    def wait_event(self, event: object) -> None:
        pass


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
