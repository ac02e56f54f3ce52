"""The support table: which combination is refused, in which words, and which labels a supported one carries."""

import math
from dataclasses import replace

import pytest
from synthetic import CPU, H100

from moe_impl import costs
from moe_impl.links import COLLECTIVE, HOST_LINK, LOCAL, PACED_PRESETS
from moe_impl.options import OWN_WEIGHTS, ChosenRank, Link, Machine, SkewedRouting, SplitPolicy, Variant, Workload
from moe_impl.shapes import PRESETS, ModelShape
from moe_impl.support import (
    MEMORY_SHARE,
    TBO_OFF,
    choices,
    has_fp4,
    impossible_reason,
    labels,
    limits,
    unsupported_reason,
)

PACED = PACED_PRESETS["h800-nvlink-ep8"]
DEEPSEEK = Workload(PRESETS["deepseek-v3"], ep_size=8, layers=2, tokens=1024, precision="nvfp4-w4a16")
BF16 = replace(DEEPSEEK, precision="bf16")
FP8 = replace(DEEPSEEK, precision="fp8", dispatch_dtype="fp8")
NARROW = replace(DEEPSEEK, model=ModelShape(96, 64, 8, 2))
SMALL = replace(DEEPSEEK, model=ModelShape(64, 64, 8, 2))
W4A4 = Workload(SMALL.model, ep_size=8, layers=2, tokens=1024, precision="nvfp4")
WIDE = replace(DEEPSEEK, model=ModelShape(8256, 64, 8, 2))
TORCH, TRITON = Variant("torch"), Variant("triton")
HUMMING, AUTO = Variant("humming"), Variant("auto")
GRAPH = Variant("triton", launch="graph")
CX7 = PACED_PRESETS["hopper-cx7-ep16"]
FP8_ONLY = replace(PACED, times=(*PACED.times[:1], replace(PACED.times[1], dtype="fp8")))
A100 = replace(H100, name="NVIDIA A100", capability=(8, 0), sm_count=108)
T4 = replace(H100, name="Tesla T4", capability=(7, 5), sm_count=40)
B200 = replace(H100, name="NVIDIA B200", capability=(10, 0), sm_count=148)
NO_TRITON = replace(H100, triton_version=None)
WITH_HUMMING = replace(H100, humming_version="0.1.19")
TINY = replace(H100, memory_bytes=2**30)
EIGHT = replace(H100, ranks=8)

SKEWED = replace(DEEPSEEK, routing=SkewedRouting("zipf", 1.0))
RANK_9 = replace(DEEPSEEK, routing=SkewedRouting("hotspot", 0.3, 9))

TABLE = [
    (DEEPSEEK, PACED, TRITON, H100, None),
    (DEEPSEEK, PACED, TRITON, A100, None),
    (DEEPSEEK, LOCAL, TORCH, H100, None),
    (BF16, PACED, TORCH, H100, None),
    (SMALL, PACED, TORCH, CPU, None),
    (replace(DEEPSEEK, ep_size=7), PACED, TRITON, H100, "ep_size 7 does not divide 256 experts"),
    (replace(SMALL, tokens=1), LOCAL, replace(TORCH, split_factor=4), CPU, None),
    (SMALL, LOCAL, replace(TORCH, split_factor=65), CPU, "split_factor 65: at most 64 micro-batches"),
    (SMALL, LOCAL, replace(TORCH, split=SplitPolicy("ratio", 0.4)), CPU, None),
    (
        SMALL,
        LOCAL,
        replace(TORCH, split=SplitPolicy("ratio", 0.4), split_factor=3),
        CPU,
        "split ratio cuts a batch in 2, not in 3",
    ),
    (BF16, PACED, TRITON, H100, "experts triton reads NVFP4 weights; bf16 runs on experts torch"),
    (FP8, PACED, TORCH, H100, None),
    (replace(FP8, dispatch_dtype="bf16"), PACED, TORCH, H100, None),
    (replace(FP8, dispatch_dtype="nvfp4"), PACED, TORCH, H100, "precision fp8 dispatches fp8 or bf16, not nvfp4"),
    (replace(FP8, model=SMALL.model), PACED, TORCH, CPU, None),
    (FP8, PACED, TRITON, H100, "experts triton reads NVFP4 weights; fp8 runs on experts torch"),
    (FP8, PACED, TORCH, A100, "precision fp8 on a GPU needs compute capability 9.0, this GPU has 8.0"),
    (FP8, PACED, TORCH, B200, "precision fp8 on a GPU needs compute capability 9.0, this GPU has 10.0"),
    (BF16, PACED, TORCH, B200, None),
    (NARROW, PACED, TRITON, H100, "experts triton needs hidden_size to be a multiple of 64, got 96"),
    (NARROW, PACED, TORCH, H100, None),
    (SMALL, PACED, TRITON, CPU, "experts triton needs a CUDA GPU"),
    (DEEPSEEK, PACED, replace(TRITON, max_tokens_per_rank=1024), H100, None),
    (
        DEEPSEEK,
        PACED,
        replace(TRITON, max_tokens_per_rank=1023),
        H100,
        "max_tokens_per_rank 1023 has no room for 1024 tokens",
    ),
    (
        DEEPSEEK,
        PACED,
        replace(TORCH, worst_case_layout="per_expert"),
        H100,
        "worst_case_layout per_expert needs experts triton, got torch",
    ),
    (replace(DEEPSEEK, precision="nvfp4"), PACED, replace(TRITON, worst_case_layout="per_expert"), H100, None),
    (DEEPSEEK, PACED, HUMMING, WITH_HUMMING, None),
    (DEEPSEEK, PACED, replace(HUMMING, receive="exact"), WITH_HUMMING, None),
    (DEEPSEEK, PACED, replace(HUMMING, launch="graph"), WITH_HUMMING, None),
    (DEEPSEEK, PACED, HUMMING, H100, "experts humming needs humming-kernels, which is not installed (extra peers)"),
    (SMALL, LOCAL, HUMMING, WITH_HUMMING, "experts humming needs hidden_size to be a multiple of 128, got 64"),
    (
        replace(DEEPSEEK, model=ModelShape(128, 192, 8, 2)),
        LOCAL,
        HUMMING,
        WITH_HUMMING,
        "experts humming needs intermediate_size to be a multiple of 128, got 192",
    ),
    (
        DEEPSEEK,
        LOCAL,
        HUMMING,
        replace(CPU, humming_version="0.1.19", memory_bytes=2**40),
        "experts humming needs a CUDA GPU",
    ),
    (BF16, PACED, HUMMING, WITH_HUMMING, "reads NVFP4 weights and bf16 rows; bf16 runs on experts torch"),
    (W4A4, PACED, HUMMING, WITH_HUMMING, "reads NVFP4 weights and bf16 rows; nvfp4 runs on experts triton"),
    (
        DEEPSEEK,
        PACED,
        replace(HUMMING, reserve_sms=16),
        WITH_HUMMING,
        "reserve_sms 16 needs experts torch or triton, got humming",
    ),
    (
        DEEPSEEK,
        PACED,
        replace(HUMMING, worst_case_layout="per_expert"),
        WITH_HUMMING,
        "worst_case_layout per_expert needs experts triton, got humming",
    ),
    (DEEPSEEK, PACED, AUTO, H100, None),
    (DEEPSEEK, PACED, replace(AUTO, worst_case_layout="per_expert", reserve_sms=16), WITH_HUMMING, None),
    (W4A4, PACED, AUTO, WITH_HUMMING, None),
    (BF16, PACED, AUTO, H100, None),
    (replace(SMALL, precision="bf16"), LOCAL, AUTO, CPU, None),
    (SMALL, PACED, AUTO, CPU, "experts triton needs a CUDA GPU"),
    (NARROW, PACED, AUTO, WITH_HUMMING, "experts triton needs hidden_size to be a multiple of 64, got 96"),
    (BF16, PACED, replace(AUTO, worst_case_layout="per_expert"), H100, "needs experts triton, got torch"),
    (BF16, PACED, TORCH, NO_TRITON, "CUDA stages need triton, which is not installed"),
    (BF16, PACED, TORCH, T4, "bf16 needs compute capability 8.0, this GPU has 7.5"),
    (SMALL, replace(PACED, comm_sms=132), TORCH, H100, "link occupies 132 of the GPU's 132 SMs"),
    (SMALL, replace(PACED, comm_sms=132), TORCH, CPU, None),
    (SMALL, LOCAL, replace(TORCH, reserve_sms=131), H100, None),
    (SMALL, LOCAL, replace(TORCH, reserve_sms=132), H100, "reserve_sms 132 leaves compute none of the GPU's 132 SMs"),
    (SMALL, LOCAL, replace(TORCH, reserve_sms=1), CPU, "reserve_sms 1 leaves SMs free: needs a CUDA GPU"),
    (SMALL, LOCAL, replace(TORCH, comm_priority="default"), CPU, None),
    (DEEPSEEK, PACED, GRAPH, H100, None),
    (DEEPSEEK, HOST_LINK, GRAPH.unsplit(), H100, None),
    (DEEPSEEK, PACED, GRAPH, A100, None),
    (BF16, LOCAL, replace(TORCH, launch="graph"), B200, None),
    (
        BF16,
        LOCAL,
        replace(TORCH, launch="graph"),
        A100,
        "launch graph: on compute capability 8.0 torch's grouped matmul waits for the host",
    ),
    (DEEPSEEK, PACED, replace(GRAPH, engine="threads"), H100, "engine must be streams or serial, got threads"),
    (DEEPSEEK, PACED, replace(GRAPH, receive="exact"), H100, "receive must be worst_case, got exact"),
    (DEEPSEEK, COLLECTIVE, GRAPH, EIGHT, "link must be local, paced or host_link, got collective"),
    (SMALL, LOCAL, replace(TORCH, launch="graph"), CPU, "launch graph needs a CUDA GPU"),
    (DEEPSEEK, PACED, GRAPH, replace(H100, torch_version="2.10.0a0+b4e4ee81d3.nv25.12"), None),
    (
        DEEPSEEK,
        PACED,
        GRAPH,
        replace(H100, torch_version="2.9.1+cu130"),
        "launch graph needs torch 2.10, which keeps stream priorities, got 2.9.1+cu130",
    ),
    (DEEPSEEK, PACED, TRITON, TINY, "of 1.0 GiB"),
    (WIDE, PACED, TRITON, H100, "link paced moves rows of up to 8192 values on a GPU, got 8256"),
    (WIDE, LOCAL, TRITON, H100, None),
    (DEEPSEEK, CX7, TRITON, H100, "link counts (token, node) rows: ep_size must be 16 or 32, got 8"),
    (replace(DEEPSEEK, ep_size=16), CX7, TRITON, H100, None),
    (replace(DEEPSEEK, ep_size=32), CX7, TRITON, H100, None),
    (replace(DEEPSEEK, ep_size=64), CX7, TRITON, H100, "ep_size must be 16 or 32, got 64"),
    (DEEPSEEK, FP8_ONLY, TRITON, H100, "link has no combine time for bf16 rows"),
    (replace(DEEPSEEK, model=PRESETS["ernie-4.5-300b-a47b"]), PACED, TRITON, H100, None),
    (replace(DEEPSEEK, model=PRESETS["gpt-oss-120b"]), PACED, TRITON, H100, None),
    (DEEPSEEK, HOST_LINK, TRITON, H100, None),
    (WIDE, HOST_LINK, TRITON, H100, None),
    (BF16, HOST_LINK, replace(TORCH, receive="exact"), H100, None),
    (SMALL, HOST_LINK, TORCH, CPU, "link host_link needs a CUDA GPU"),
    (W4A4, PACED, TRITON, H100, None),
    (W4A4, LOCAL, TORCH, CPU, None),
    (replace(W4A4, dispatch_dtype="bf16"), PACED, TRITON, H100, None),
    (
        replace(W4A4, dispatch_dtype="fp8"),
        PACED,
        TRITON,
        H100,
        "precision nvfp4 dispatches nvfp4 or bf16, not fp8",
    ),
    (
        replace(DEEPSEEK, dispatch_dtype="nvfp4"),
        PACED,
        TRITON,
        H100,
        "precision nvfp4-w4a16 dispatches bf16, not nvfp4",
    ),
    (DEEPSEEK, COLLECTIVE, TRITON, EIGHT, None),
    (DEEPSEEK, COLLECTIVE, replace(TRITON, receive="exact"), EIGHT, None),
    (SMALL, COLLECTIVE, TORCH, replace(CPU, ranks=8), None),
    (replace(SMALL, ep_size=1), COLLECTIVE, TORCH, CPU, "link collective needs at least 2 ranks, got ep_size 1"),
    (
        DEEPSEEK,
        COLLECTIVE,
        TRITON,
        H100,
        "link collective needs 8 processes, one a rank: bench sweep --nproc 8 (or another ep_size), got 1",
    ),
    (replace(DEEPSEEK, ep_size=4), COLLECTIVE, TRITON, EIGHT, "--nproc 4 (or another ep_size), got 8"),
    (DEEPSEEK, PACED, TRITON, EIGHT, "link paced stands for one rank: run it without --nproc"),
    (replace(DEEPSEEK, ep_size=1), LOCAL, TRITON, EIGHT, "link local stands for one rank: run it without --nproc"),
    (SKEWED, PACED, TRITON, H100, None),
    (SKEWED, HOST_LINK, replace(TRITON, receive="exact"), H100, None),
    (SKEWED, COLLECTIVE, TRITON, EIGHT, None),
    (RANK_9, LOCAL, TRITON, H100, "routing has rank 9: ep_size 8 has ranks 0..7"),
    (replace(RANK_9, ep_size=16), LOCAL, TRITON, H100, None),
    (
        replace(DEEPSEEK, routing=SkewedRouting("zipf", 1.0, "mean")),
        COLLECTIVE,
        TRITON,
        EIGHT,
        "link collective runs every rank: skewed routing takes no rank there, got mean",
    ),
    (
        replace(SKEWED, ep_size=16),
        CX7,
        TRITON,
        H100,
        "link counts (token, node) rows: routing must be model or uniform, got zipf-1-hottest",
    ),
]


@pytest.mark.parametrize(("workload", "link", "variant", "machine", "reason"), TABLE)
def test_a_combination_is_refused_for_its_first_reason_or_supported(
    workload: Workload, link: Link, variant: Variant, machine: Machine, reason: str | None
) -> None:
    found = unsupported_reason(workload, link, variant, machine)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert found.endswith(reason)


def test_memory_is_compared_with_weights_and_buffers_together() -> None:
    fits = next(
        mib
        for mib in range(1024, 80 * 1024, 64)
        if not unsupported_reason(DEEPSEEK, PACED, TRITON, replace(H100, memory_bytes=mib << 20))
    )
    # 2 layers x 32 experts x 44 M weights at 9/16 byte, twice, are 2.95 GiB; buffers of 512 tokens of 8 ranks the rest.
    assert 3.2 * 1024 < fits < 8 * 1024
    assert unsupported_reason(DEEPSEEK, PACED, TRITON.unsplit(), replace(H100, memory_bytes=fits << 20))


def test_a_split_makes_room_for_a_batch_that_does_not_fit_unsplit() -> None:
    """DeepSeek-V3 EP8, a GEMM's two sides in layout ``per_expert``: (7168 + 4096) x 2 bytes x 32 experts x 8 ranks x
    tokens are 44 GiB for a largest batch of 8192 tokens and 88 GiB for 16384; half of that split in 2."""
    apart = replace(TRITON, worst_case_layout="per_expert", max_tokens_per_rank=8192)
    larger = replace(apart, max_tokens_per_rank=16384)
    assert unsupported_reason(DEEPSEEK, PACED, apart.unsplit(), H100) is None
    assert unsupported_reason(DEEPSEEK, PACED, larger, H100) is None
    assert str(unsupported_reason(DEEPSEEK, PACED, larger.unsplit(), H100)).startswith("needs about 91.")
    a100 = replace(A100, memory_bytes=40 * 2**30)
    assert str(unsupported_reason(DEEPSEEK, PACED, apart.unsplit(), a100)).startswith("needs about 47.")
    assert unsupported_reason(DEEPSEEK, PACED, apart, a100) is None
    packed = replace(larger, worst_case_layout="packed").unsplit()
    assert unsupported_reason(DEEPSEEK, PACED, packed, H100) is None


def test_a_graphs_memory_stands_beside_that_of_its_t1_and_t2s() -> None:
    needs = costs.weight_bytes(DEEPSEEK, "triton") + costs.attention_bytes(DEEPSEEK)
    runs = (TRITON, TRITON.unsplit(), TRITON.split_serial())
    least = (needs + sum(costs.buffer_bytes(DEEPSEEK, run) for run in runs)) / MEMORY_SHARE
    for memory_bytes, runs_too in ((math.ceil(least), True), (math.floor(least * 0.999), False)):
        machine = replace(H100, memory_bytes=memory_bytes)
        assert unsupported_reason(DEEPSEEK, LOCAL, TRITON, machine) is None
        assert (unsupported_reason(DEEPSEEK, LOCAL, GRAPH, machine) is None) == runs_too


def test_what_is_packed_before_it_leaves_needs_memory_too() -> None:
    needs = {
        link: next(
            mib
            for mib in range(1024, 80 * 1024, 16)
            if not unsupported_reason(BF16, link, TORCH, replace(machine, memory_bytes=mib << 20))
        )
        for link, machine in ((LOCAL, H100), (HOST_LINK, H100), (COLLECTIVE, EIGHT))
    }
    # 512 tokens in about 5 copies of 14336 bytes, of 92 % of the memory
    assert needs[HOST_LINK] - needs[LOCAL] == pytest.approx(512 * 4 * 14336 / 0.92 / 2**20, abs=20)
    assert needs[COLLECTIVE] == needs[HOST_LINK]


def test_ranks_on_a_cpu_share_its_memory() -> None:
    of_a_rank = costs.weight_bytes(SMALL, "torch") + costs.buffer_bytes(SMALL, TORCH)
    of_a_rank += costs.send_buffer_bytes(SMALL, TORCH)
    just_enough = replace(CPU, ranks=8, memory_bytes=math.ceil(8 * of_a_rank / MEMORY_SHARE))
    assert unsupported_reason(SMALL, COLLECTIVE, TORCH, just_enough) is None
    less = replace(just_enough, memory_bytes=just_enough.memory_bytes - 100)
    assert "needs about" in str(unsupported_reason(SMALL, COLLECTIVE, TORCH, less))


@pytest.mark.parametrize(
    ("workload", "link", "variant", "machine", "said"),
    [
        (
            DEEPSEEK,
            PACED,
            TRITON,
            H100,
            ("emulated (exact products)", "modelled comm, measured compute", "hypothetical: link of H800"),
        ),
        (DEEPSEEK, LOCAL, TORCH, H100, ("bf16 weight traffic", "emulated (exact products)")),
        (W4A4, LOCAL, TORCH, H100, ("bf16 weight traffic", "emulated (exact products)")),
        (W4A4, LOCAL, TRITON, H100, ("emulated (exact products)",)),
        (W4A4, LOCAL, TRITON, B200, ("native (FP4 tensor cores)",)),
        (W4A4, LOCAL, TRITON, replace(B200, capability=(12, 0)), ("native (FP4 tensor cores)",)),
        (W4A4, LOCAL, TORCH, B200, ("bf16 weight traffic", "emulated (exact products)")),
        (DEEPSEEK, LOCAL, TRITON, B200, ("emulated (exact products)",)),
        (BF16, LOCAL, TORCH, H100, ()),
        (BF16, PACED, TORCH, replace(H100, name="NVIDIA H800"), ("modelled comm, measured compute",)),
        (
            BF16,
            PACED_PRESETS["hopper-nvlink-ep8"],
            TORCH,
            replace(H100, name="NVIDIA H200"),
            ("modelled comm, measured compute", "hypothetical: link of H20"),
        ),
        (
            BF16,
            PACED_PRESETS["b200-nvlink-ep8-v1"],
            TORCH,
            replace(H100, name="NVIDIA GB200"),
            ("modelled comm, measured compute", "hypothetical: link of B200"),
        ),
        (
            BF16,
            PACED_PRESETS["hopper-nvlink-ep8"],
            TORCH,
            replace(H100, name="NVIDIA H20-3e"),
            ("modelled comm, measured compute",),
        ),
        (BF16, replace(PACED, gpu=None), TORCH, H100, ("modelled comm, measured compute",)),
        (BF16, LOCAL, TORCH, CPU, ("cpu: functional check, no performance claim",)),
        (replace(BF16, model=replace(BF16.model, note="shape only: x")), LOCAL, TORCH, H100, ("shape only: x",)),
        (
            BF16,
            replace(PACED, gpu=None, note="link fitted to t.csv"),
            TORCH,
            H100,
            ("modelled comm, measured compute", "link fitted to t.csv"),
        ),
        (BF16, HOST_LINK, TORCH, H100, ("measured comm (host link)", "sizes from the pre-drawn routing")),
        (
            BF16,
            HOST_LINK,
            Variant("torch", receive="exact"),
            H100,
            ("host waits for counts", "measured comm (host link)"),
        ),
        (BF16, COLLECTIVE, TORCH, EIGHT, ("measured comm (NCCL all-to-all)", "sizes from the pre-drawn routing")),
        (
            BF16,
            COLLECTIVE,
            Variant("torch", receive="exact"),
            EIGHT,
            ("host waits for counts", "measured comm (NCCL all-to-all)"),
        ),
        (
            BF16,
            COLLECTIVE,
            TORCH,
            replace(CPU, ranks=8),
            (
                "cpu: functional check, no performance claim",
                "measured comm (gloo all-to-all)",
                "sizes from the pre-drawn routing",
            ),
        ),
    ],
)
def test_every_number_says_what_it_is(
    workload: Workload, link: Link, variant: Variant, machine: Machine, said: tuple[str, ...]
) -> None:
    assert labels(workload, link, variant, machine) == said


@pytest.mark.parametrize(
    ("rank", "link", "machine", "said"),
    [
        ("hottest", LOCAL, H100, "skewed routing: plays the hottest rank"),
        ("mean", LOCAL, H100, "skewed routing: plays the mean rank"),
        (5, LOCAL, H100, "skewed routing: plays rank 5"),
        ("hottest", COLLECTIVE, EIGHT, "skewed routing: every rank its own load"),
    ],
)
def test_a_skewed_routing_says_which_rank_is_played(
    rank: int | ChosenRank, link: Link, machine: Machine, said: str
) -> None:
    found = labels(replace(DEEPSEEK, routing=SkewedRouting("zipf", 1.0, rank)), link, TRITON, machine)
    assert said in found
    assert not any("skewed" in label for label in labels(DEEPSEEK, link, TRITON, machine))


def test_a_variant_that_turns_itself_off_says_so_and_may_not_advise() -> None:
    from_1025, from_1024 = (replace(TRITON, split=SplitPolicy(min_tokens=least)) for least in (1025, 1024))
    assert limits(DEEPSEEK, from_1025, H100) == limits(DEEPSEEK, from_1025.split_serial(), H100) == (TBO_OFF,)
    assert TBO_OFF in labels(DEEPSEEK, LOCAL, from_1025, H100)
    assert limits(DEEPSEEK, from_1024, H100) == limits(DEEPSEEK, from_1025.unsplit(), H100) == ()


def test_only_native_weights_on_a_gpu_may_advise() -> None:
    assert limits(DEEPSEEK, TRITON, H100) == ()
    assert limits(BF16, TORCH, H100) == ()
    assert limits(DEEPSEEK, TORCH, H100) == ("bf16 weight traffic",)
    assert limits(DEEPSEEK, TORCH, CPU) == ("cpu: functional check, no performance claim", "bf16 weight traffic")


def test_auto_chooses_from_what_runs_every_variant_that_asks() -> None:
    for variants, machine, expected in (
        ([AUTO], WITH_HUMMING, ("triton", "humming")),
        ([AUTO], H100, ("triton",)),
        ([AUTO, replace(AUTO, reserve_sms=16)], WITH_HUMMING, ("triton",)),
        ([AUTO, replace(AUTO, worst_case_layout="per_expert")], WITH_HUMMING, ("triton",)),
    ):
        assert choices(DEEPSEEK, PACED, variants, machine) == expected
    assert choices(W4A4, PACED, [AUTO], WITH_HUMMING) == ("triton",)
    assert choices(BF16, PACED, [AUTO], WITH_HUMMING) == ("torch",)


def test_the_usual_backend_runs_what_any_of_its_precision_runs() -> None:
    """So that there is one for all variants of a case, each of which has some."""
    for workload, link, variant, machine, _ in TABLE:
        usual, *others = OWN_WEIGHTS[workload.precision]
        for name in others:
            if unsupported_reason(workload, link, replace(variant, experts=name), machine) is None:
                assert unsupported_reason(workload, link, replace(variant, experts=usual), machine) is None


def test_auto_runs_wherever_the_usual_backend_does() -> None:
    """The layout of one stays; a second that has no room beside it while it is tried is out, not the case."""
    for workload in (DEEPSEEK, W4A4, BF16):
        usual = OWN_WEIGHTS[workload.precision][0]
        assert costs.weight_bytes(workload, "auto") == costs.weight_bytes(workload, usual)
        for machine in (H100, replace(H100, memory_bytes=2**33), replace(H100, memory_bytes=2**34)):
            reasons = [unsupported_reason(workload, PACED, Variant(name), machine) for name in ("auto", usual)]
            assert reasons[0] == reasons[1]


def test_what_some_machine_can_run_is_not_impossible() -> None:
    huge = replace(BF16, tokens=2**20, layers=60)
    wide = replace(BF16, model=WIDE.model)
    for workload, link in ((huge, PACED), (FP8, PACED), (BF16, HOST_LINK), (BF16, COLLECTIVE), (wide, PACED)):
        assert impossible_reason(workload, link, TORCH) is None
    assert impossible_reason(DEEPSEEK, PACED, TRITON) is None


def test_what_no_machine_can_run_is_refused_with_the_reason_of_any() -> None:
    assert impossible_reason(BF16, PACED, TRITON) == unsupported_reason(BF16, PACED, TRITON, H100) is not None
    assert impossible_reason(BF16, CX7, TORCH) == "link counts (token, node) rows: ep_size must be 16 or 32, got 8"


@pytest.mark.parametrize(
    ("capability", "expected"), [((10, 0), True), ((10, 3), True), ((12, 1), True), ((9, 0), False), (None, False)]
)
def test_which_gpus_multiply_codes(capability: tuple[int, int] | None, expected: bool) -> None:
    assert has_fp4(capability) is expected
