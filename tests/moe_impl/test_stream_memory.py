"""No schedule lets a stream read what is not written yet, or gives away memory that the other stream still uses.

All timings at once, from a record of the bodies themselves: the exact half of what ``test_fuzzed_lanes`` tries out.
"""

from itertools import product

import pytest
from order_of_ops import ancestors, needed_edges
from small_layer import Built
from stream_memory import Memory, Recorder, record
from whole_layers import KINDS

from moe_impl.options import Order, Receive, Variant
from moe_impl.overlap.schedule import ORDERS, for_variant
from moe_impl.stages import Stage
from moe_impl.state import UbatchState


def memory(built: Built, receive: Receive, order: Order, split_factor: int = 2) -> Memory:
    return record(built.run(Variant("torch", receive=receive, split_factor=split_factor, order=order)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("receive", ["worst_case", "exact"])
def test_no_timing_breaks_a_schedule_and_each_needed_edge_is_why(receive: Receive, kind: str) -> None:
    built = Built(KINDS[kind])
    built.stages = built.stages_for(receive)
    for split_factor, order in product((2, 3), ORDERS):
        found = memory(built, receive, order, split_factor)
        assert found.conflicts
        assert not found.hazards()
        for edge in needed_edges(found.schedule):
            assert found.hazards(frozenset({edge})), [str(found.schedule.ops[position]) for position in edge]


def test_when_a_run_ends_the_compute_lane_has_waited_for_all_communication() -> None:
    """So the caller may read, and the next run's buffers may be this one's."""
    for kind, receive, split_factor, order in product(KINDS, ("worst_case", "exact"), (2, 3, 4), ORDERS):
        chosen = Variant("torch", receive=receive, split_factor=split_factor, order=order)  # type: ignore[arg-type]
        schedule = for_variant(chosen, KINDS[kind])
        assert ancestors(schedule)[-1] == set(range(len(schedule.ops) - 1))


def test_what_dispatch_sends_let_go_when_it_is_issued_is_found() -> None:
    """On the host dispatch is over then; on its stream it may not have begun."""
    built = Built(KINDS["quantized"])
    dispatch = built.stages.bodies[Stage.DISPATCH]

    def forgetting(state: UbatchState, layer: int) -> None:
        dispatch(state, layer)
        state.payload_TB = None

    built.stages.bodies[Stage.DISPATCH] = forgetting
    found = memory(built, "worst_case", "yield_after").hazards()
    assert any("may get memory that layer 0 ubatch 0 dispatch still uses" in hazard for hazard in found)
    assert not any("at once" in hazard for hazard in found)


def test_memory_of_the_comm_stream_that_compute_reads_unrecorded_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Order yield_before: dispatch 1 allocates when permute 0 was issued, and so let go of its rows."""
    monkeypatch.setattr(Recorder, "record_stream", lambda recorder, tensor: None)
    found = memory(Built(KINDS["plain"]), "exact", "yield_before").hazards()
    assert "layer 0 ubatch 1 dispatch may get memory that layer 0 ubatch 0 permute still uses" in found
