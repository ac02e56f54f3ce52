"""Engine ``threads``: each micro-batch's ops are issued by a host thread of its own, one thread at a time.

Threads are started for each run, as vLLM starts its own for each forward: 15 us a thread more than keeping them
(docs/DECISIONS.md), and nothing outlives a run.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from moe_impl.overlap.driver import Run
from moe_impl.overlap.turns import DEADLINE_S, HandOverTimeoutError, StoppedError, Turns

LEAVE_S = 1.0
"""How long the caller waits for threads to leave a run that was stopped: as a rule the op under way, microseconds."""


class OpFailedError(RuntimeError):
    """An op raised (its ``__cause__``) in a thread of its own; the message names layer, micro-batch and stage."""


def run_threads(run: Run, deadline_s: float = DEADLINE_S) -> None:
    """Issue every op from its micro-batch's thread; the hand-overs are the schedule's, and so is the order.

    Args:
        run: its ``progress`` and ``around`` are called by whichever thread issues.
        deadline_s: how long a micro-batch may keep its turn.

    Raises:
        OpFailedError: from what an op, ``progress`` or ``around`` raised. The other threads have left.
        HandOverTimeoutError: a micro-batch kept its turn too long. Its thread may still be stuck (it is a daemon, and
            issues nothing more if it wakes up); the others have left.
    """
    turns = Turns(run.schedule, deadline_s)
    enter = caller_state()
    threads = {
        ubatch: threading.Thread(
            target=_issue, args=(run, turns, positions, enter), name=f"moe-tbo-ubatch-{ubatch}", daemon=True
        )
        for ubatch, positions in run.schedule.chains.items()
    }
    try:
        for thread in threads.values():
            thread.start()
        turns.begin()
        turns.await_end()
    except HandOverTimeoutError as late:
        turns.stop(late)
    except BaseException:  # Ctrl-C, or no thread can be started: no peer may wait for a turn that will not come
        turns.stop()
        _leave(list(threads.values()))
        raise
    stuck = turns.holder if isinstance(turns.failure, HandOverTimeoutError) else None
    _leave([thread for ubatch, thread in threads.items() if ubatch != stuck])
    if turns.failure is None:
        return
    if turns.failed_at is None:
        raise turns.failure
    what = f"{run.schedule.ops[turns.failed_at]}: {type(turns.failure).__name__}: {turns.failure}"
    raise OpFailedError(what) from turns.failure


def caller_state() -> Callable[[], AbstractContextManager[None]]:
    """Makes the context that gives a thread what torch keeps per thread: the caller's stream and autograd modes.

    The stream is the one on which lanes that set none (``OneLane``) issue.
    """
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None

    @contextmanager
    def enter() -> Iterator[None]:
        with (
            torch.inference_mode(inference),
            torch.set_grad_enabled(grad),
            nullcontext() if stream is None else torch.cuda.stream(stream),
        ):
            if stream is not None:
                stream.query()  # binds the CUDA context to this thread, which a Triton launch takes for granted
            yield

    return enter


def _issue(run: Run, turns: Turns, positions: Sequence[int], enter: Callable[[], AbstractContextManager[None]]) -> None:
    """A thread's whole life: one micro-batch's ops, in turn."""
    ubatch = run.schedule.ops[positions[0]].ubatch
    hand_overs = run.schedule.hand_overs
    position = positions[0]
    try:
        with enter():
            turns.take(ubatch)
            for position in positions:
                turns.issuing(position)
                run.issue(position)
                if position in hand_overs:
                    turns.hand_over(position, hand_overs[position])
                    if position != positions[-1]:
                        turns.take(ubatch)
        if positions[-1] == len(run.schedule.ops) - 1:
            turns.finish()
    except StoppedError:
        pass
    except HandOverTimeoutError as late:
        turns.stop(late)
    except BaseException as error:  # a thread's exception reaches no one by itself: the caller raises it
        turns.stop(error, position)


def _leave(threads: Sequence[threading.Thread]) -> None:
    """Join those that were started, LEAVE_S in all."""
    until_s = time.monotonic() + LEAVE_S
    for thread in threads:
        if thread.is_alive():
            thread.join(max(0.0, until_s - time.monotonic()))
