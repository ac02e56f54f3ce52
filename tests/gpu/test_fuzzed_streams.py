"""Order fuzzing on real streams: delays before any op, in its own stream, change no bit."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from small_target import ignore, small_target

from moe_impl.links import LOCAL
from moe_impl.options import Engine, Receive, Variant
from moe_impl.overlap.schedule import ORDERS, Op

pytestmark = pytest.mark.gpu

RUNS = 200 if os.environ.get("BENCH_SOAK") == "1" else 20
CYCLES = 1_000_000
"""About half a millisecond: at least twice the longest stage of this small batch."""


@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize("engine", ["streams", "threads"])
def test_no_delay_changes_the_answer(engine: Engine, receive: Receive) -> None:
    target = small_target("nvfp4-w4a16", LOCAL, tokens=515)
    draw = random.Random(f"{engine} {receive}")
    for order in ORDERS:
        variant = Variant("triton", engine=engine, receive=receive, order=order)
        expected = target.run(variant.split_serial(), ignore)()
        target.poison(variant)
        run = target.run(variant, ignore)
        for _ in range(RUNS):
            density = {lane: draw.choice((0.0, 0.5, 1.0)) for lane in ("compute", "comm")}

            @contextmanager
            def delayed(position: int, op: Op, density: dict[str, float] = density) -> Iterator[None]:
                if draw.random() < density[op.lane]:
                    torch.cuda._sleep(int(CYCLES * draw.uniform(1, 3)))
                yield

            assert torch.equal(run(delayed), expected), variant.label
