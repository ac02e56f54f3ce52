"""Whole layers on a GPU: every variant right, overlapped ones really overlapping, nothing waiting for the host."""

from statistics import median

import pytest
import torch
from no_wait import no_wait
from small_target import MODEL, SLOW, ignore, small_target

from bench.correctness import errors
from bench.measure.cuda_timer import CudaEventTimer
from moe_impl.links import LOCAL
from moe_impl.options import Link, Precision, Variant, default_experts
from moe_impl.overlap.schedule import ORDERS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("link", [LOCAL, SLOW], ids=lambda link: link.name)
@pytest.mark.parametrize(
    ("precision", "experts"), [("bf16", "torch"), ("nvfp4-w4a16", "torch"), ("nvfp4-w4a16", "triton")]
)
def test_every_variant_agrees_with_the_oracle_and_with_the_serial_run(
    precision: Precision, experts: str, link: Link
) -> None:
    target = small_target(precision, link, tokens=515)
    for split in (2, 4):
        for order in ORDERS:
            overlapped = Variant(experts, split_factor=split, order=order)
            finals = {}
            for variant in (overlapped.unsplit(), overlapped.split_serial(), overlapped):
                target.poison(variant)
                final, traces = target.run(variant, ignore).traced()
                for layer, trace in enumerate(traces):
                    assert errors(trace.y_TH, target.oracle(layer, trace)).within(1e-2), (variant.label, layer)
                finals[variant.role] = final
            assert torch.equal(finals["T2s"], finals["T2o"])
            if target.batch_invariant(overlapped):
                assert torch.equal(finals["T1"], finals["T2o"])


def test_a_hundred_overlapped_runs_give_the_same_bits() -> None:
    target = small_target("nvfp4-w4a16", SLOW, tokens=256)
    run = target.run(Variant("triton"), ignore)
    first = run()
    assert all(torch.equal(first, run()) for _ in range(100))


def test_communication_is_hidden_behind_compute_and_issuing_never_waits() -> None:
    """Comm that takes about as long as compute: the overlapped run must be well under the serial one."""
    target = small_target("bf16", SLOW, tokens=8192)
    overlapped = Variant(default_experts("bf16"))
    timer = CudaEventTimer()
    runs = {variant.role: target.run(variant, ignore) for variant in (overlapped.split_serial(), overlapped)}
    for run in runs.values():
        run()
    taken_s = {role: median(timer.time_s(run) for _ in range(10)) for role, run in runs.items()}
    assert taken_s["T2o"] < 0.9 * taken_s["T2s"], taken_s
    with no_wait():
        runs["T2o"]()


def test_nothing_is_retained_after_a_run_and_a_split_needs_less_memory() -> None:
    target = small_target("bf16", LOCAL, tokens=2048)
    overlapped = Variant("torch")
    peaks = {}
    for variant in (overlapped.unsplit(), overlapped):
        run = target.run(variant, ignore)
        run()
        _, memory = target.watching_memory(run)
        assert memory is not None
        assert memory.retained_bytes <= 2 * 2048 * MODEL.hidden_size * 2, "at most the final x, and its copy"
        peaks[variant.role] = memory.activations_bytes
    assert peaks["T2o"] < 0.75 * peaks["T1"], peaks
