"""Every engine again and again on a GPU: no memory, thread, stream, event or file more, and no slower.

``BENCH_SOAK=1`` (``make soak``) makes 20,000 iterations of each, about a quarter of a minute.
"""

import effort
import pytest
import torch
from small_target import MODEL
from soaking import EVERY_ENGINE, soak, soak_variant

from bench.cases import Case
from bench.targets import Target, Targets
from moe_impl.links import LOCAL
from moe_impl.options import Engine, Launch, Receive, Variant, Workload

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def built() -> Target:
    work = Workload(MODEL, ep_size=8, layers=1, tokens=64, precision="nvfp4-w4a16")
    return Targets(torch.device("cuda")).build(Case(work, LOCAL, ()))


@pytest.mark.timeout(600 if effort.SOAK else 120)
@EVERY_ENGINE
def test_an_engine_may_run_all_night(built: Target, engine: Engine, receive: Receive, launch: Launch) -> None:
    with torch.inference_mode():
        soak_variant(built, Variant("triton", engine, 2, receive=receive, launch=launch), effort.GPU_ITERATIONS)


@pytest.mark.parametrize(
    "leak",
    [torch.cuda.Event, torch.cuda.Stream, lambda: torch.empty(1, device="cuda")],
    ids=["event", "stream", "tensor"],
)
def test_one_that_stays_is_seen(leak) -> None:  # type: ignore[no-untyped-def]
    kept: list[object] = []
    calls = iter(range(100))
    torch.zeros(1, device="cuda")
    soaked = soak(lambda: next(calls) == 90 and kept.append(leak()), iterations=100)
    assert (soaked.complaint() or "").startswith("something is held: ")
