"""Engine ``threads``: the answer and the order of the other engines, one thread at a time, and an end in every case."""

import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from plain_schedule import build
from small_layer import LOCAL, PACED, Built, workload

from moe_impl.options import Link, Order, Variant
from moe_impl.overlap.driver import Run
from moe_impl.overlap.lanes import OneLane
from moe_impl.overlap.schedule import ORDERS, Op, Schedule
from moe_impl.overlap.threads import OpFailedError, run_threads
from moe_impl.overlap.turns import HandOverTimeoutError
from moe_impl.stages import Stage
from moe_impl.state import UbatchState

SPLITS = (2, 3, 4)
DEADLINE_S = 0.1
IN_TIME_S = 5.0
"""Far over any deadline here, far under the default one."""


@pytest.fixture(autouse=True)
def no_thread_outlives_its_run() -> Iterator[None]:
    yield
    assert alive() == []


def alive() -> list[str]:
    """Names of the engine's threads, given a moment to leave."""
    until_s = time.monotonic() + IN_TIME_S
    while (names := [t.name for t in threading.enumerate() if t.name.startswith("moe-tbo")]) and (
        time.monotonic() < until_s
    ):
        time.sleep(0.001)
    return names


def idle(state: UbatchState, layer: int) -> None:
    """A body that does nothing."""


def states(num_ubatches: int) -> list[UbatchState]:
    return [UbatchState(slice(ubatch, ubatch + 1), torch.zeros(1, 1)) for ubatch in range(num_ubatches)]


def prepared(schedule: Schedule, at: Callable[[int, Op], None] = lambda position, op: None) -> Run:
    """A run of empty bodies; ``at`` is called inside every op."""

    def around(position: int, op: Op) -> nullcontext[None]:
        at(position, op)
        return nullcontext()

    bodies = dict.fromkeys(Stage, idle)
    return Run(schedule, bodies, states(schedule.num_ubatches), OneLane(), lambda position: None, around)


def points(schedule: Schedule) -> list[int]:
    """Every op before a hand-over and every op after its micro-batch got the turn."""
    return sorted({p for before in schedule.hand_overs for p in (before, before + 1)})


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("split_factor", SPLITS)
@pytest.mark.parametrize("link", [LOCAL, PACED], ids=["local", "paced"])
def test_threads_give_the_bits_of_the_serial_run(split_factor: int, order: Order, link: Link) -> None:
    built = Built(workload(), link)
    threads = Variant("torch", engine="threads", split_factor=split_factor, order=order)
    serial, serial_traces = built.run(threads.split_serial()).traced()
    final, traces = built.run(threads).traced()
    assert torch.equal(final, serial)
    assert torch.equal(built.run(threads)(), serial)
    for ours, theirs in zip(traces, serial_traces, strict=True):
        assert torch.equal(ours.x_TH, theirs.x_TH)
        assert torch.equal(ours.y_TH, theirs.y_TH)


def test_exact_receive_counts_from_any_thread() -> None:
    built = Built(workload())
    exact = Variant("torch", engine="threads", receive="exact")
    assert torch.equal(built.run(exact)(), built.run(exact.split_serial())())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("num_ubatches", [1, *SPLITS])
def test_each_micro_batch_is_issued_by_its_own_thread_in_the_schedules_order(num_ubatches: int, order: Order) -> None:
    schedule = build(2, num_ubatches, order)
    issued: list[int] = []
    by: dict[int, set[int]] = {}

    def at(position: int, op: Op) -> None:
        issued.append(position)
        by.setdefault(op.ubatch, set()).add(threading.get_ident())

    told: list[int] = []
    run = prepared(schedule, at)
    run_threads(Run(schedule, run.bodies, run.states, run.lanes, told.append, run.around))
    assert issued == told == list(range(len(schedule.ops)))
    assert sorted(by) == list(range(num_ubatches))
    threads = [next(iter(idents)) for idents in by.values() if len(idents) == 1]
    assert len(set(threads) - {threading.get_ident()}) == num_ubatches


def test_the_order_comes_of_the_hand_overs_and_of_nothing_else() -> None:
    """No thread looks at another micro-batch's ops: one that hands over in the end only issues its own first."""
    schedule = build(1, 2, "yield_after")
    chains = schedule.chains
    schedule.__dict__["hand_overs"] = {chains[0][-1]: 1}  # in place of the derived ones
    issued: list[int] = []
    run_threads(prepared(schedule, lambda position, op: issued.append(position)))
    assert issued == [*chains[0], *chains[1]]


def test_a_hand_over_that_is_lost_is_found_out() -> None:
    schedule = build(1, 2, "yield_after")
    schedule.__dict__["hand_overs"] = {}
    with pytest.raises(HandOverTimeoutError, match=r"micro-batch 1 .* waited for micro-batch 0, .* ubatch 0 merge"):
        run_threads(prepared(schedule), DEADLINE_S)


def test_two_threads_never_issue_at_once() -> None:
    inside: list[int] = []

    @contextmanager
    def around(position: int, op: Op) -> Iterator[None]:
        inside.append(position)
        time.sleep(0.0005)  # lets another thread in, if any may come
        assert inside == [position]
        yield
        inside.clear()

    run = prepared(build(1, 4, "yield_before"))
    run_threads(Run(run.schedule, run.bodies, run.states, run.lanes, run.progress, around))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("num_ubatches", SPLITS)
def test_a_raise_in_any_op_stops_all_threads_and_reaches_the_caller_with_its_place(
    num_ubatches: int, order: Order
) -> None:
    schedule = build(2, num_ubatches, order)
    for culprit, place in enumerate(schedule.ops):
        issued: list[int] = []

        def at(position: int, op: Op, culprit: int = culprit, issued: list[int] = issued) -> None:
            issued.append(position)
            if position == culprit:
                raise torch.OutOfMemoryError("made up")

        with pytest.raises(OpFailedError, match=f"^{place}: OutOfMemoryError: made up$") as caught:
            run_threads(prepared(schedule, at))
        assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
        assert issued == list(range(culprit + 1)), "an op was issued after the failure"
        assert not [t for t in threading.enumerate() if t.name.startswith("moe-tbo")]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("num_ubatches", [2, 3])
def test_a_stall_at_any_hand_over_ends_in_time_and_says_who_waited_for_whom(num_ubatches: int, order: Order) -> None:
    schedule = build(1, num_ubatches, order)
    for culprit in points(schedule):
        release = threading.Event()
        issued: list[int] = []

        def at(
            position: int,
            op: Op,
            culprit: int = culprit,
            release: threading.Event = release,
            issued: list[int] = issued,
        ) -> None:
            issued.append(position)
            if position == culprit:
                assert release.wait(2 * IN_TIME_S)

        started_s = time.monotonic()
        with pytest.raises(HandOverTimeoutError) as caught:
            run_threads(prepared(schedule, at), DEADLINE_S)
        assert DEADLINE_S <= time.monotonic() - started_s < IN_TIME_S
        release.set()
        assert alive() == []
        assert issued == list(range(culprit + 1)), "the stuck thread went on after all"
        late, stuck = caught.value, schedule.ops[culprit]
        assert late.holder == stuck.ubatch
        done = {op.ubatch for op in schedule.ops} - {op.ubatch for op in schedule.ops[culprit:]}
        assert set(late.waiting) == set(range(num_ubatches)) - {stuck.ubatch} - done
        summary, *trace = str(late).splitlines()
        for ubatch in late.waiting:
            assert f"micro-batch {ubatch} (since 0." in summary
        assert f"waited for micro-batch {stuck.ubatch}, which has kept its turn for " in summary
        assert summary.endswith(f"limit {DEADLINE_S:g} s), last op issued: {stuck}")
        passed = [p for p in schedule.hand_overs if p < culprit]
        assert [h.position for h in late.hand_overs] == passed
        assert [line.split(" s: ")[1] for line in trace] == [
            f"{schedule.ops[p].ubatch} > {schedule.ops[p + 1].ubatch} after {schedule.ops[p]}" for p in passed
        ]


def test_a_run_may_last_longer_than_the_deadline_if_every_turn_is_shorter() -> None:
    schedule = build(1, 4, "yield_after")
    started_s = time.monotonic()
    run_threads(prepared(schedule, lambda position, op: time.sleep(0.02)), deadline_s=0.25)
    assert time.monotonic() - started_s > 0.7, "micro-batch 3 waited for three turns, each of six ops at most"


def test_a_run_that_raised_can_be_run_again() -> None:
    built = Built(workload())
    run = built.run(Variant("torch", engine="threads"))
    expected = run()
    gemm2 = built.stages.bodies[Stage.GEMM2]

    def failing(state: UbatchState, layer: int) -> None:
        raise ValueError("made up")

    built.stages.bodies[Stage.GEMM2] = failing
    with pytest.raises(OpFailedError, match="layer 0 ubatch 0 gemm2: ValueError: made up"):
        run()
    built.stages.bodies[Stage.GEMM2] = gemm2
    assert torch.equal(run(), expected)


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), StopIteration()], ids=repr)
def test_whatever_an_op_raises_reaches_the_caller(raised: BaseException) -> None:
    def at(position: int, op: Op) -> None:
        if position == 5:
            raise raised

    with pytest.raises(OpFailedError) as caught:
        run_threads(prepared(build(1, 2, "yield_after"), at))
    assert caught.value.__cause__ is raised


def test_a_failing_progress_is_an_ops_failure_too() -> None:
    run = prepared(build(1, 2, "yield_after"))

    def progress(position: int) -> None:
        if position == 3:
            raise OSError("disk full")

    with pytest.raises(OpFailedError, match="layer 0 ubatch 1 dispatch: OSError: disk full"):
        run_threads(Run(run.schedule, run.bodies, run.states, run.lanes, progress))


@pytest.mark.parametrize("culprit", [0, 4, 17])
def test_ctrl_c_reaches_the_caller_at_once_and_stops_the_threads(culprit: int) -> None:
    schedule = build(1, 2, "yield_before")
    issued: list[int] = []
    caller = threading.get_ident()

    def at(position: int, op: Op) -> None:
        issued.append(position)
        if position == culprit:
            signal.pthread_kill(caller, signal.SIGINT)
            time.sleep(0.2)

    started_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_threads(prepared(schedule, at))
    assert time.monotonic() - started_s < IN_TIME_S
    assert not [t for t in threading.enumerate() if t.name.startswith("moe-tbo")]
    assert issued == list(range(culprit + 1))


def test_a_thread_that_cannot_be_started_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def failing(thread: threading.Thread) -> None:
        if thread.name == "moe-tbo-ubatch-1":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", failing)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run_threads(prepared(build(1, 3, "yield_after")))


def test_fifty_runs_leave_no_thread_and_no_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(workload())
    run = built.run(Variant("torch", engine="threads", split_factor=3))
    start, made = built.stages.start, []

    def spying(*arguments: Any) -> list[UbatchState]:
        states = start(*arguments)
        made.extend(map(weakref.ref, states))
        return states

    monkeypatch.setattr(built.stages, "start", spying)
    run()
    before = threading.active_count()
    gc.collect()
    gc.disable()  # what only the collector frees would hold GPU memory beyond its run
    try:
        for _ in range(50):
            run()
        held = [ref for ref in made if ref() is not None]
    finally:
        gc.enable()
    assert threading.active_count() == before
    assert len(made) == 51 * 3
    assert not held


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_threads_issue_under_the_callers_autograd_modes(inference: bool, grad: bool) -> None:
    seen: set[tuple[bool, bool]] = set()

    def at(position: int, op: Op) -> None:
        seen.add((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))

    with torch.inference_mode(inference), torch.set_grad_enabled(grad):
        run_threads(prepared(build(1, 2, "yield_after"), at))
        assert seen == {(torch.is_inference_mode_enabled(), torch.is_grad_enabled())}
