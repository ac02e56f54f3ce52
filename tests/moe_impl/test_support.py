"""The support table: which combination is refused, in which words, and which labels a supported one carries."""

from dataclasses import replace

import pytest
from synthetic import CPU, H100

from moe_impl.links import LOCAL, PACED_PRESETS
from moe_impl.options import Link, Machine, Variant, Workload
from moe_impl.shapes import PRESETS, ModelShape
from moe_impl.support import labels, limits, unsupported_reason

PACED = PACED_PRESETS["h800-nvlink-ep8"]
DEEPSEEK = Workload(PRESETS["deepseek-v3"], ep_size=8, layers=2, tokens=1024, precision="nvfp4-w4a16")
BF16 = replace(DEEPSEEK, precision="bf16")
NARROW = replace(DEEPSEEK, model=ModelShape(96, 64, 8, 2))
SMALL = replace(DEEPSEEK, model=ModelShape(64, 64, 8, 2))
WIDE = replace(DEEPSEEK, model=ModelShape(8256, 64, 8, 2))
TORCH, TRITON = Variant("torch"), Variant("triton")
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
    (replace(SMALL, tokens=1), LOCAL, TORCH, CPU, "1 tokens cannot fill 2 micro-batches"),
    (replace(SMALL, tokens=1), LOCAL, TORCH.unsplit(), CPU, None),
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
        (BF16, replace(PACED, gpu=None), TORCH, H100, ("modelled comm, measured compute",)),
        (BF16, LOCAL, TORCH, CPU, ("cpu: functional check, no performance claim",)),
    ],
)
def test_every_number_says_what_it_is(
    workload: Workload, link: Link, variant: Variant, machine: Machine, said: tuple[str, ...]
) -> None:
    assert labels(workload, link, variant, machine) == said


def test_only_native_weights_on_a_gpu_may_advise() -> None:
    assert limits(DEEPSEEK, TRITON, H100) == ()
    assert limits(BF16, TORCH, H100) == ()
    assert limits(DEEPSEEK, TORCH, H100) == ("bf16 weight traffic",)
    assert limits(DEEPSEEK, TORCH, CPU) == ("cpu: functional check, no performance claim", "bf16 weight traffic")
