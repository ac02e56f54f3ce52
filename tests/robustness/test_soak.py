"""Every engine again and again on a CPU: nothing grows, nothing gets slower, and what would is seen."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import effort
import pytest
import torch
from soaking import EVERY_ENGINE, NEEDS_PROC, soak, soak_variant

from bench.cases import Case
from bench.targets import Target, Targets
from moe_impl.links import LOCAL
from moe_impl.options import Engine, Launch, Receive, Variant, Workload
from moe_impl.shapes import ModelShape

pytestmark = NEEDS_PROC


@pytest.fixture(scope="module")
def built() -> Target:
    work = Workload(ModelShape(32, 32, 4, 2), ep_size=2, layers=1, tokens=6, precision="bf16")
    return Targets(torch.device("cpu")).build(Case(work, LOCAL, ()))


@pytest.mark.timeout(3600 if effort.SOAK else 120)
@EVERY_ENGINE
def test_an_engine_may_run_all_night(built: Target, engine: Engine, receive: Receive, launch: Launch) -> None:
    soak_variant(built, Variant("torch", engine, 2, receive=receive, launch=launch), effort.ITERATIONS)


Leak = Callable[[ExitStack], object]


def keep_a_thread(stack: ExitStack) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    stack.callback(thread.join)
    stack.callback(end.set)


def keep_a_file(stack: ExitStack) -> None:
    stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("leak", [keep_a_thread, keep_a_file])
def test_one_thread_or_file_that_stays_is_seen(stack: ExitStack, leak: Leak) -> None:
    calls = iter(range(100))
    soaked = soak(lambda: next(calls) == 90 and leak(stack), iterations=100)
    assert (soaked.complaint() or "").startswith("something is held: ")


def test_a_little_of_every_iteration_is_seen() -> None:
    kept: list[bytearray] = []
    soaked = soak(lambda: kept.append(bytearray(2048)), iterations=300)
    if soaked.object_growth_bytes:  # traced
        assert (soaked.complaint() or "").startswith("Python objects: ")


def test_an_iteration_that_looks_through_all_before_it_is_seen() -> None:
    calls = iter(range(200))
    soaked = soak(lambda: sum(range(next(calls) ** 2)), iterations=200)
    assert (soaked.complaint() or "").startswith("time: ")


def test_an_iteration_that_leaves_nothing_is_not_complained_of() -> None:
    assert soak(lambda: sum(range(1_000)), iterations=200).complaint() is None
