"""Link ``collective`` over NCCL: the local link's bits, no host wait but for sizes; two GPUs where there are two."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from no_wait import no_wait
from rank_pool import RankPool, join_group
from small_target import MODEL, ignore

from bench.cases import Case
from bench.correctness import TOLERANCE, errors
from bench.targets import Targets
from moe_impl import rows
from moe_impl.counts import CountsOverdueError
from moe_impl.kernels.count_peers import count_peers
from moe_impl.links import COLLECTIVE, LOCAL
from moe_impl.options import Precision, Receive, Variant, Workload
from moe_impl.transport.splits import PeerSizes

pytestmark = pytest.mark.gpu

CYCLES_PER_S = 1.7e9
"""About an H100's SM clock; torch.cuda._sleep counts cycles."""
BACKENDS = [("bf16", "torch"), ("nvfp4-w4a16", "triton"), ("nvfp4", "triton")]


def _workload(precision: Precision, ep_size: int, tokens: int = 515) -> Workload:
    return Workload(MODEL, ep_size=ep_size, layers=2, tokens=tokens, precision=precision)


def _variants(experts: str, receive: Receive) -> list[Variant]:
    asked = [
        Variant(experts, engine, split, receive=receive)  # type: ignore[arg-type]
        for engine in ("serial", "streams", "threads")
        for split in (1, 2, 3)
    ]
    return list(dict.fromkeys(variant.normalized() for variant in asked))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This process as the only rank of a group."""
    join_group(0, 1, tmp_path_factory.mktemp("alone") / "meeting", "nccl")
    yield
    dist.destroy_process_group()


def _sent(tokens: int, ranks: int) -> rows.SentRows:
    ids = torch.stack([torch.randperm(64, device="cuda")[:8] for _ in range(tokens)]).sort(-1).values.int()
    return rows.plan_rows(ids, torch.ones(tokens, 8, device="cuda"), num_experts=64, ep_size=ranks)


@pytest.mark.parametrize("tokens", [1, 255, 257, 2000])
def test_rows_and_pairs_are_counted_by_peer_as_plain_torch_counts(tokens: int) -> None:
    sent = _sent(tokens, 8)
    plain, found = (torch.full((8, 2), -1, dtype=torch.int32, device="cuda") for _ in range(2))
    rows.count_peers(sent, plain)
    count_peers(sent, found)
    assert torch.equal(found, plain)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize(("precision", "experts"), BACKENDS)
def test_a_single_rank_gives_the_local_links_bits(precision: Precision, experts: str, receive: Receive) -> None:
    targets = Targets(torch.device("cuda"), rank=0)
    work = _workload(precision, ep_size=1)
    local, collective = (targets.build(Case(work, link, ())) for link in (LOCAL, COLLECTIVE))
    for variant in _variants(experts, receive):
        expected = local.run(variant, ignore)()
        collective.poison(variant)
        run = collective.run(variant, ignore)
        for _ in range(5):
            assert torch.equal(run(), expected), variant.label


@pytest.mark.usefixtures("alone")
def test_under_worst_case_nothing_waits_for_the_device_while_it_is_issued() -> None:
    target = Targets(torch.device("cuda"), rank=0).build(Case(_workload("nvfp4-w4a16", 1), COLLECTIVE, ()))
    for variant in _variants("triton", "worst_case"):
        run = target.run(variant, ignore)
        run()
        with no_wait():
            run()
    torch.cuda._sleep(int(0.3 * CYCLES_PER_S))
    started_s = time.perf_counter()
    run()
    issued_s = time.perf_counter() - started_s
    assert issued_s < 0.1, f"the host took {issued_s:.3f} s behind a kernel of 0.3 s: it waited"
    torch.cuda.synchronize()


@pytest.mark.usefixtures("alone")
def test_the_host_learns_sizes_while_compute_queued_before_keeps_running() -> None:
    sent, sizes = _sent(100, 1), PeerSizes(1, torch.device("cuda"))
    sizes.wait(sent)  # compiles, connects
    comm = torch.cuda.Stream(priority=-1)
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(int(0.2 * CYCLES_PER_S))
    done.record()
    started_s = time.perf_counter()
    with torch.cuda.stream(comm):
        told = sizes.wait(sent)
    waited_s = time.perf_counter() - started_s
    assert not done.query(), "the wait drained the compute stream"
    assert waited_s < 0.02, f"{waited_s:.4f} s beside 0.2 s of queued compute"
    assert told.exchange is not None
    assert (told.exchange.sent_R, told.exchange.received_R, told.exchange.exact_pairs) == ([100], [100], 800)
    torch.cuda.synchronize()


@pytest.mark.usefixtures("alone")
def test_sizes_that_never_come_end_the_wait() -> None:
    sent = _sent(10, 1)
    PeerSizes(1, torch.device("cuda")).wait(sent)
    torch.cuda._sleep(int(0.5 * CYCLES_PER_S))  # the exchange is queued behind this
    with pytest.raises(CountsOverdueError, match=r"within 0\.05 s: a peer is late"):
        PeerSizes(1, torch.device("cuda"), deadline_s=0.05).wait(sent)
    torch.cuda.synchronize()


def agrees(rank: int, precision: Precision, experts: str, receive: Receive, hot: bool) -> None:
    """On one rank of two: every variant against the oracle, and with the bits that the local link gives where a
    backend's rows do not depend on the others in the batch."""
    device = torch.device("cuda", rank)
    targets = Targets(device, rank)
    work = _workload(precision, ep_size=2)
    if hot:
        work = replace(work, model=replace(MODEL, router=replace(MODEL.router, num_groups=1, top_groups=1)))
    local, collective = (targets.build(Case(work, link, ())) for link in (LOCAL, COLLECTIVE))
    if hot:  # everything to rank 1
        for target in (local, collective):
            target._inputs.logits_LTE[..., : work.local_experts] -= 50
    finals = {}
    for variant in _variants(experts, receive):
        collective.poison(variant)
        run = collective.run(variant, ignore)
        final, traces = run.traced()
        for layer, trace in enumerate(traces):
            found = errors(trace.y_TH, collective.oracle(layer, trace), precision)
            assert found.within(TOLERANCE[precision]), (variant.label, layer, found)
        for _ in range(10):
            assert torch.equal(run(), final), variant.label
        finals[variant] = final
        assert torch.equal(final, finals[variant.split_serial()]), variant.label
        if collective.batch_invariant(variant):
            assert torch.equal(final, local.run(variant, ignore)()), variant.label


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankPool]:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    with RankPool(2, tmp_path_factory.mktemp("two"), "nccl") as pool:
        yield pool


@pytest.mark.parametrize("hot", [False, True], ids=["balanced", "hot"])
@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize(("precision", "experts"), BACKENDS)
def test_two_gpus_agree_with_the_oracle_and_with_the_local_link(
    two: RankPool, precision: Precision, experts: str, receive: Receive, hot: bool
) -> None:
    two.call(agrees, precision, experts, receive, hot)
