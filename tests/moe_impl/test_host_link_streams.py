"""The order in which link ``host_link`` lets its streams work, on streams that run as late and as oddly as allowed.

No GPU: a stand-in for CUDA's streams and events queues everything and runs it in a random order that they permit.
Memory is poisoned as soon as its reader is promised to be done.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_schedule import PLAIN
from torch import Tensor

from moe_impl import rows
from moe_impl.options import Link
from moe_impl.transport import chunks
from moe_impl.transport.base import transport

pytest.importorskip("triton")
from moe_impl.transport import host_link
from moe_impl.transport.host_link import HostLink

H = 64
LEAST, MOST = 512, 1024  # bytes of a chunk here: a row has 128
CAPACITY = 320
POISON = 0xFF
"""Of every byte: a bf16 NaN."""


class Moment:
    """One recording of an event."""

    def __init__(self) -> None:
        self.passed = False

    def passes(self) -> None:
        self.passed = True


class Event:
    """As CUDA's: a wait means the latest recording when the wait is issued, and none if there was none."""

    def __init__(self) -> None:
        self.latest: Moment | None = None

    def record(self, stream: "Stream") -> None:
        self.latest = Moment()
        stream.do(self.latest.passes)


@dataclass
class Stream:
    """A queue of steps; None waits for nothing."""

    queue: list[tuple[Moment | None, Callable[[], object]]] = field(default_factory=list)

    def do(self, step: Callable[[], object]) -> None:
        self.queue.append((None, step))

    def wait_event(self, event: Event) -> None:
        if event.latest is not None:
            self.queue.append((event.latest, lambda: None))


class Device:
    """All streams; ``run`` takes the next step of any stream that may go on."""

    def __init__(self) -> None:
        self.current = Stream()
        self.streams = [self.current]

    def new_stream(self, device: object) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    def run(self, dice: random.Random) -> None:
        while any(stream.queue for stream in self.streams):
            ready = [s for s in self.streams if s.queue and (s.queue[0][0] is None or s.queue[0][0].passed)]
            assert ready, "the streams wait for each other"
            dice.choice(ready).queue.pop(0)[1]()


@contextmanager
def stand_in() -> Iterator[tuple[Device, HostLink]]:
    """A link on a device whose streams run nothing until told."""
    device = Device()

    def copy_on(stream: Stream, target_B: Tensor, source_B: Tensor) -> None:
        stream.do(lambda: target_B.copy_(source_B))

    def move_rows(source: Tensor, target_MH: Tensor, count: Tensor, index_M: Tensor) -> None:
        used = int(count)
        device.current.do(lambda: target_MH[:used].copy_(source[index_M[:used].long()]))
        packed.append(target_MH)

    packed: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "LEAST_CHUNK_BYTES", LEAST)
        patch.setattr(chunks, "MOST_CHUNK_BYTES", MOST)
        patch.setattr(torch.cuda, "Stream", device.new_stream)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "current_stream", lambda: device.current)
        patch.setattr(torch.cuda, "set_stream", lambda stream: None)
        patch.setattr(host_link, "pinned_ring", lambda: poisoned(chunks.SLOTS, MOST))
        patch.setattr(host_link, "copy_on", copy_on)
        patch.setattr(host_link, "move_rows", move_rows)
        patch.setattr(host_link, "engine_streams", host_link.engine_streams.__wrapped__)  # a pair for each fake device
        link = HostLink(torch.device("cpu"))
        dispatch = link.dispatch

        def dispatch_and_reuse(x_TH: Tensor, sent: rows.SentRows, received_MH: Tensor) -> None:
            dispatch(x_TH, sent, received_MH)
            while packed:  # let go on the host: the current stream's next tensor may lie there
                freed = packed.pop()
                device.current.do(lambda freed=freed: freed.view(torch.uint8).fill_(POISON))

        link.dispatch = dispatch_and_reuse  # type: ignore[method-assign]
        yield device, link


def poisoned(*shape: int) -> Tensor:
    return torch.full(shape, POISON, dtype=torch.uint8)


def room() -> Tensor:
    return poisoned(CAPACITY, 2 * H).view(torch.bfloat16)


def sent_rows(used: int, dice: random.Random) -> rows.SentRows:
    """CAPACITY rows, of which ``used`` are sent, from random tokens."""
    plan = rows.plan_rows(torch.zeros(CAPACITY, 1, dtype=torch.int32), torch.ones(CAPACITY, 1), 1, 1)
    tokens = torch.tensor([dice.randrange(CAPACITY) for _ in range(CAPACITY)], dtype=torch.int32)
    return replace(plan, token_M=tokens, num_rows=torch.tensor([used], dtype=torch.int32), known_rows=used)


ROWS = st.integers(0, CAPACITY) | st.sampled_from([0, 1, 3, 4, 5, 15, 16, 17, 47, 48, 49, CAPACITY])


@given(st.lists(ROWS, min_size=1, max_size=4), st.integers(0, 2**32))
def test_rows_come_back_bit_for_bit_whatever_the_streams_do(counts: list[int], seed: int) -> None:
    dice = random.Random(seed)
    arrived: list[tuple[Tensor, Tensor]] = []
    with stand_in() as (device, link):
        for used in counts:
            sent, x_TH, received_MH, returned_MH = sent_rows(used, dice), torch.randn(CAPACITY, H), room(), room()
            x_TH = x_TH.bfloat16()
            expected = room()
            expected[:used] = x_TH[sent.token_M[:used].long()]
            late_x_TH = room()  # written on the current stream just before: the link must not read it earlier
            device.current.do(lambda to=late_x_TH, of=x_TH: to.copy_(of))
            link.dispatch(late_x_TH, sent, received_MH)
            device.current.do(lambda gone=late_x_TH: gone.view(torch.uint8).fill_(POISON))
            device.current.do(lambda: link.ring_SB.fill_(POISON))
            link.combine(received_MH, sent, returned_MH)
            # What the current stream sees next, before it reuses everything.
            device.current.do(
                lambda r=received_MH, b=returned_MH, e=expected: arrived.extend([(r.clone(), e), (b.clone(), e)])
            )
            device.current.do(lambda gone=received_MH: gone.view(torch.uint8).fill_(POISON))
            device.current.do(lambda: link.ring_SB.fill_(POISON))
        device.run(dice)
    assert len(arrived) == 2 * len(counts)
    for found, expected in arrived:
        assert torch.equal(found.view(torch.int16), expected.view(torch.int16))


def test_the_host_must_know_how_many_rows_travel() -> None:
    unknown = replace(sent_rows(3, random.Random(0)), known_rows=None)
    with stand_in() as (_, link):
        for send in (link.dispatch, link.combine):
            with pytest.raises(ValueError, match="link host_link needs a row count that the host knows"):
                send(room(), unknown, room())


def test_there_is_no_such_link_without_a_gpu() -> None:
    with pytest.raises(ValueError, match="link host_link needs a CUDA GPU"):
        transport(Link("host_link"), PLAIN, torch.device("cpu"))
