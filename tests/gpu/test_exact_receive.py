"""Receive exact on a GPU: the host learns the counts while queued compute keeps running, and the answer stays."""

import time

import pytest
import torch
from small_target import SLOW, ignore, small_target

from moe_impl import rows
from moe_impl.counts import CountsOverdueError, PinnedCounts
from moe_impl.links import LOCAL
from moe_impl.options import Variant

pytestmark = pytest.mark.gpu

CYCLES_PER_S = 1.7e9
"""About an H100's SM clock; torch.cuda._sleep counts cycles."""


def _sent(tokens: int) -> rows.SentRows:
    ids = torch.stack([torch.randperm(64, device="cuda")[:8] for _ in range(tokens)]).sort(-1).values.int()
    return rows.plan_rows(ids, torch.ones(tokens, 8, device="cuda"), num_experts=64, ep_size=8)


def test_the_host_learns_counts_while_compute_queued_before_keeps_running() -> None:
    sent = _sent(100)
    counts = PinnedCounts()
    expected = (int(sent.num_rows), 800)
    assert counts.wait(sent) == expected  # compiles
    comm = torch.cuda.Stream(priority=-1)
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(int(0.2 * CYCLES_PER_S))
    done.record()
    started_s = time.perf_counter()
    with torch.cuda.stream(comm):
        assert counts.wait(sent) == expected
    waited_s = time.perf_counter() - started_s
    assert not done.query(), "the wait drained the compute stream"
    assert waited_s < 0.02, f"{waited_s:.4f} s beside 0.2 s of queued compute"
    torch.cuda.synchronize()


def test_counts_that_never_come_end_the_wait() -> None:
    sent = _sent(10)
    PinnedCounts().wait(sent)
    torch.cuda._sleep(int(0.5 * CYCLES_PER_S))  # the notify step is queued behind this
    with pytest.raises(CountsOverdueError, match=r"within 0\.05 s"):
        PinnedCounts(deadline_s=0.05).wait(sent)
    torch.cuda.synchronize()


@pytest.mark.parametrize("link", [LOCAL, SLOW], ids=lambda link: link.name)
@pytest.mark.parametrize(("precision", "experts"), [("bf16", "torch"), ("nvfp4-w4a16", "triton")])
def test_exact_gives_the_bits_of_worst_case_in_less_memory(precision, experts, link) -> None:  # type: ignore[no-untyped-def]
    target = small_target(precision, link, tokens=1030)
    worst = Variant(experts)
    expected = target.run(worst, ignore)()
    _, before = target.watching_memory(target.run(worst, ignore))
    for split in (1, 2, 4):
        for order in ("yield_before", "yield_after"):
            exact = Variant(experts, split_factor=split, receive="exact", order=order)
            for variant in (exact.unsplit(), exact.split_serial(), exact):
                target.poison(variant)
                run = target.run(variant, ignore)
                for _ in range(5):
                    final = run()
                if target.batch_invariant(variant) or split == 2:
                    assert torch.equal(final, expected), variant.label
    _, after = target.watching_memory(target.run(Variant(experts, receive="exact"), ignore))
    assert before is not None
    assert after is not None
    assert after.activations_bytes < 0.5 * before.activations_bytes
