"""Backend ``humming`` on a GPU: right in every variant, the same bits whenever it runs, no wait for the device."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from no_wait import no_wait
from small_target import SLOW, ignore, small_target

from bench.choosing_experts import Means, choose
from bench.correctness import errors
from bench.environment import describe
from bench.measure.cuda_timer import CudaEventTimer
from moe_impl.links import LOCAL
from moe_impl.options import Link, Variant

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_spec("humming") is None, reason="humming-kernels is not installed (extra peers)"),
]

CUDA = torch.device("cuda")
HUMMING = Variant("humming")
"""Each matrix and number of rows costs some 3 s of compiling where the library's cache is cold."""


@pytest.mark.parametrize("launch", ["eager", "graph"])
@pytest.mark.parametrize("link", [LOCAL, SLOW], ids=lambda link: link.name)
def test_every_variant_agrees_with_the_oracle_and_with_the_serial_run(link: Link, launch: str) -> None:
    target = small_target("nvfp4-w4a16", link, tokens=512)
    overlapped = replace(HUMMING, launch=launch)
    exact = [] if launch == "graph" else [replace(HUMMING, receive="exact")]
    for each in (overlapped, *exact):
        finals = {}
        for variant in (each.unsplit(), each.split_serial(), each):
            target.poison(variant)
            finals[variant.role], traces = target.run(variant, ignore).traced()
            for layer, trace in enumerate(traces):
                assert errors(trace.y_TH, target.oracle(layer, trace)).within(1e-2), (variant.label, layer)
        assert torch.equal(finals["T2s"], finals["T2o"]), each.label


def test_a_hundred_overlapped_runs_give_the_same_bits_and_none_waits() -> None:
    run = small_target("nvfp4-w4a16", SLOW, tokens=512).run(HUMMING, ignore)
    first = run()
    assert all(torch.equal(first, run()) for _ in range(100))
    with no_wait():
        run()


def test_auto_times_both_and_takes_the_faster() -> None:
    target = small_target("nvfp4-w4a16", LOCAL, tokens=512)
    auto = Variant("auto")
    choice = choose(target, [auto, auto.unsplit()], Means(describe(CUDA), CudaEventTimer()))
    assert choice.out == {}
    assert set(choice.t1_s) == {"triton", "humming"}
    assert choice.t1_s[choice.experts] == min(choice.t1_s.values())
    named = target.run(Variant(choice.experts), ignore)()
    assert torch.equal(target.run(auto, ignore)(), named)
