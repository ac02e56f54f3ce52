"""The support table: which combination is refused, in which words, and which labels a supported one carries."""

from dataclasses import replace

import pytest
from synthetic import CPU, H100

from moe_impl.links import HOST_LINK, LOCAL, PACED_PRESETS
from moe_impl.options import Link, Machine, SplitPolicy, Variant, Workload
from moe_impl.shapes import PRESETS, ModelShape
from moe_impl.support import TBO_OFF, labels, limits, unsupported_reason

PACED = PACED_PRESETS["h800-nvlink-ep8"]
DEEPSEEK = Workload(PRESETS["deepseek-v3"], ep_size=8, layers=2, tokens=1024, precision="nvfp4-w4a16")
BF16 = replace(DEEPSEEK, precision="bf16")
NARROW = replace(DEEPSEEK, model=ModelShape(96, 64, 8, 2))
SMALL = replace(DEEPSEEK, model=ModelShape(64, 64, 8, 2))
WIDE = replace(DEEPSEEK, model=ModelShape(8256, 64, 8, 2))
TORCH, TRITON = Variant("torch"), Variant("triton")
CX7 = PACED_PRESETS["hopper-cx7-ep16"]
FP8_ONLY = replace(PACED, times=(*PACED.times[:1], replace(PACED.times[1], dtype="fp8")))
A100 = replace(H100, name="NVIDIA A100", capability=(8, 0), sm_count=108)
T4 = replace(H100, name="Tesla T4", capability=(7, 5), sm_count=40)
NO_TRITON = replace(H100, triton_version=None)
TINY = replace(H100, memory_bytes=2**30)

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
    (NARROW, PACED, TRITON, H100, "experts triton needs hidden_size to be a multiple of 64, got 96"),
    (NARROW, PACED, TORCH, H100, None),
    (SMALL, PACED, TRITON, CPU, "experts triton needs a CUDA GPU"),
    (BF16, PACED, TORCH, NO_TRITON, "CUDA stages need triton, which is not installed"),
    (BF16, PACED, TORCH, T4, "bf16 needs compute capability 8.0, this GPU has 7.5"),
    (SMALL, replace(PACED, comm_sms=132), TORCH, H100, "link occupies 132 of the GPU's 132 SMs"),
    (SMALL, replace(PACED, comm_sms=132), TORCH, CPU, None),
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


def test_what_host_link_packs_before_it_leaves_needs_memory_too() -> None:
    needs = {
        link: next(
            mib
            for mib in range(1024, 80 * 1024, 16)
            if not unsupported_reason(BF16, link, TORCH, replace(H100, memory_bytes=mib << 20))
        )
        for link in (LOCAL, HOST_LINK)
    }
    # 512 tokens in about 5 copies of 14336 bytes, of 92 % of the memory
    assert needs[HOST_LINK] - needs[LOCAL] == pytest.approx(512 * 4 * 14336 / 0.92 / 2**20, abs=20)


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
    ],
)
def test_every_number_says_what_it_is(
    workload: Workload, link: Link, variant: Variant, machine: Machine, said: tuple[str, ...]
) -> None:
    assert labels(workload, link, variant, machine) == said


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
