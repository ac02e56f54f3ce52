"""What the compiler makes of the kernels for GPUs that need not be here: the instructions that the method relies on."""

import functools
import re
from typing import Any

import pytest
from compiled_apart import compiled_by

pytest.importorskip("triton")

HOPPER = 90
CAPABILITIES = (HOPPER, 100, 120)
KERNELS = {
    "choose_experts", "choose_experts_beside_peers", "lay_out_rows", "lay_out_rows_of_peers",
    "move_rows", "notify", "paced_link", "paced_link_nvfp4", "silu_mul",
    "silu_mul_per_expert", "spread_pairs",
    "reduce_rows", "merge_rows", "add_normalized",
    "quantize_rows", "expand_pairs", "silu_mul_quantize", "scale_pairs",
    "quantize_fp8", "gather_fp8", "silu_mul_fp8",
    "count_pairs", "count_peers", "place_pairs", "nvfp4_grouped_gemm", "nvfp4_grouped_gemm_64",
    "nvfp4_grouped_gemm_32", "nvfp4_grouped_gemm_2", "nvfp4_grouped_gemm_per_expert", "nvfp4_grouped_gemm_leaving_sms",
    "silu_mul_quantize_to_codes",
    "nvfp4_scaled_gemm", "nvfp4_scaled_gemm_64", "nvfp4_scaled_gemm_32", "nvfp4_scaled_gemm_leaving_sms",
}  # fmt: skip
SCALED = sorted(kernel for kernel in KERNELS if kernel.startswith("nvfp4_scaled_gemm"))
FP4_INSTRUCTION = {
    100: r"tcgen05\.mma\.cta_group::1\.kind::mxf4nvf4\.block_scale\S*block16",
    120: r"mma\.sync\S*kind::mxf4nvf4\.block_scale\.scale_vec::4X\.f32\.e2m1\.e2m1\.f32\.ue4m3",
}

GEMMS = sorted(kernel for kernel in KERNELS if kernel.startswith("nvfp4_grouped_gemm"))


@functools.cache
def compiled(capability: int) -> dict[str, dict[str, Any]]:
    """kernel -> PTX and resources."""
    return compiled_by("compile_kernels.py", str(capability))


def lines(capability: int, kernel: str, pattern: str) -> list[str]:
    """Instructions of a kernel's PTX that match."""
    return [line.strip() for line in compiled(capability)[kernel]["ptx"].splitlines() if re.search(pattern, line)]


def resources(kernel: str, capability: int = HOPPER) -> dict[str, int]:
    """Of a cubin for Hopper, or another GPU."""
    found: dict[str, int] | None = compiled(capability)[kernel]["resources"]
    if found is None:
        pytest.skip("this triton ships no cuobjdump")
    return found


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_kernel_compiles(capability: int) -> None:
    assert set(compiled(capability)) == KERNELS
    for kernel, result in compiled(capability).items():
        assert re.search(rf"\.target sm_{capability}a?\b", result["ptx"]), kernel


@pytest.mark.parametrize(
    ("capability", "instruction"),
    [
        (HOPPER, r"wgmma\.mma_async\S*\.f32\.bf16\.bf16"),
        (100, r"tcgen05\.mma\S*kind::f16"),
        (120, r"mma\.sync\S*\.f32\.bf16\.bf16\.f32"),
    ],
)
def test_the_gemm_multiplies_bf16_on_the_tensor_cores_and_loads_ahead(capability: int, instruction: str) -> None:
    assert lines(capability, "nvfp4_grouped_gemm", instruction)
    assert lines(capability, "nvfp4_grouped_gemm", r"cp\.async\.cg\.shared\.global.*, 0x10, "), "weights, copied ahead"
    assert lines(capability, "nvfp4_grouped_gemm", r"cp\.async\.bulk\.tensor"), "x"
    assert not lines(capability, "nvfp4_grouped_gemm", r"(ld|st)\.local")


@pytest.mark.parametrize("kernel", GEMMS)
def test_the_gemm_on_hopper_expands_weights_in_registers(kernel: str) -> None:
    """No weight passes through shared memory on its way from the load to wgmma: 16 bytes are read, 32 products made."""
    ptx: str = compiled(HOPPER)[kernel]["ptx"]
    loop = ptx[ptx.index("fma.rn.bf16x2") : ptx.rindex("wgmma.mma_async")]
    assert not re.search(r"st\.shared|stmatrix|ldmatrix|shfl", loop)
    products = set(re.findall(r"fma\.rn\.bf16x2 (%r\d+),", ptx))
    operands = re.findall(r"wgmma\.mma_async\S* \{[^}]*\}, \{([^}]*)\}", ptx)
    assert operands
    copied = dict(re.findall(r"mov\.b32 (%r\d+), (%r\d+);", ptx))
    assert {copied.get(register, register) for operand in operands for register in operand.split(",")} == products
    codes = lines(HOPPER, kernel, r"ld\.shared\.v4\.b32")
    assert len(products) <= 16 * len(codes), "of 16 bytes come 32 values, 16 registers"


@pytest.mark.parametrize("kernel", GEMMS)
def test_no_wgmma_runs_on_into_a_step_that_overwrites_its_weights(kernel: str) -> None:
    ptx: str = compiled(HOPPER)[kernel]["ptx"]
    waits = re.findall(r"wgmma\.wait_group\.sync\.aligned (\d+)", ptx)
    assert waits
    assert set(waits) == {"0"}
    waited = ptx.index("wgmma.wait_group", ptx.rindex("wgmma.mma_async"))
    assert "bra" not in ptx[ptx.rindex("wgmma.mma_async") : waited], "in the step that began it"


@pytest.mark.parametrize("kernel", GEMMS)
def test_no_global_load_of_the_gemms_loop_waits_in_registers(kernel: str) -> None:
    """Codes, scales and x are copied to shared memory; the few plain loads are the ends and the tensor scale."""
    plain = lines(HOPPER, kernel, r"ld\.global")
    assert not [line for line in plain if re.search(r"\.(b8|u8|v4|v2|b16|u16)", line)], plain


@pytest.mark.parametrize(
    "kernel",
    [
        *GEMMS,
        "spread_pairs",
        "paced_link",
        "merge_rows",
        "reduce_rows",
        "quantize_fp8",
        "silu_mul_fp8",
    ],
)
def test_no_kernel_spills_registers(kernel: str) -> None:
    found = resources(kernel)
    assert (found["STACK"], found["LOCAL"]) == (0, 0)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_gemm_that_leaves_sms_free_asks_for_its_sm_and_takes_tiles_by_ticket(capability: int) -> None:
    """And a GEMM that leaves none does neither."""
    leaving, plain = "nvfp4_grouped_gemm_leaving_sms", "nvfp4_grouped_gemm"
    assert len(lines(capability, leaving, r"mov\S* .*%smid")) == 1, "once: it does not move"
    assert lines(capability, leaving, r"atom\.global\S*\.cas\.b32")
    assert len(lines(capability, leaving, r"atom\.global\S*\.add\.\w32")) == 4, "SMs; a look; tickets, two"
    assert not lines(capability, plain, r"%smid|\batom\.")
    for loads in (r"cp\.async\.c[ag]\.shared", r"wgmma\.mma_async|tcgen05\.mma|mma\.sync"):
        assert len(lines(capability, leaving, loads)) == len(lines(capability, plain, loads)), "the same inner loop"


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_link_cta_is_1024_threads_of_at_most_64_registers(capability: int) -> None:
    assert lines(capability, "paced_link", r"^\.reqntid 1024\b")
    assert lines(capability, "paced_link", r"^\.maxnreg 64\b")


def test_a_link_cta_takes_an_sms_whole_register_file() -> None:
    """Hopper hands out registers in eights: more than 56 are 64, and 64 x 1024 are all 65536."""
    for kernel in ("paced_link", "paced_link_nvfp4"):
        assert 56 < resources(kernel)["REG"] <= 64, kernel


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_link_publishes_with_release_waits_with_acquire_and_spins_on_the_global_timer(capability: int) -> None:
    ptx = compiled(capability)["paced_link"]["ptx"]
    assert lines(capability, "paced_link", r"atom\.global\.gpu\.acq_rel\.add\.u64"), "tickets"
    assert lines(capability, "paced_link", r"atom\.global\.gpu\.release\.exch\.b64")
    loops = re.findall(r"^(\$L__BB0_\d+):(.*?)@%p\d+ bra\s+\1;", ptx, re.MULTILINE | re.DOTALL)
    inner = [body for _, body in loops if "bra" not in body]
    assert sum("ld.global.gpu.acquire.b64" in body for body in inner) == 1, "the flag is read anew at every turn"
    assert sum("%globaltimer" in body for body in inner) == 1, "the clock is read anew at every turn"
    assert lines(capability, "paced_link", r"ld\.volatile\.global"), "the deadline is not from an old cache line"


@pytest.mark.parametrize("capability", FP4_INSTRUCTION)
@pytest.mark.parametrize("kernel", SCALED)
def test_fp4_tensor_cores_multiply_codes_under_e4m3_scales(kernel: str, capability: int) -> None:
    """Nothing is expanded on the way, and all that the loop reads is copied ahead."""
    assert lines(capability, kernel, FP4_INSTRUCTION[capability])
    assert not lines(capability, kernel, r"mma\S*(\.bf16|kind::f16)")
    assert lines(capability, kernel, r"cp\.async\.c[ag]\.shared\.global")
    plain = lines(capability, kernel, r"ld\.global")
    assert all(".b32" in line for line in plain), f"ends, rows' places and the tensor scale alone: {plain}"
    found = resources(kernel, capability)
    assert (found["STACK"], found["LOCAL"]) == (0, 0), "spills"


@pytest.mark.parametrize("kernel", SCALED)
def test_without_fp4_tensor_cores_both_operands_are_expanded(kernel: str) -> None:
    assert lines(HOPPER, kernel, r"wgmma\.mma_async\S*\.f32\.bf16\.bf16")
    assert not lines(HOPPER, kernel, "mxf4")


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_partial_sums_multiply_and_add_separately(capability: int) -> None:
    """The oracle rounds twice: a fused multiply-add would give other bits."""
    assert not lines(capability, "reduce_rows", r"\bfma\.")
    assert lines(capability, "reduce_rows", r"\bmul(\.rn)?\.f32")
    assert lines(capability, "reduce_rows", r"\badd(\.rn)?\.f32")


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("kernel", ["quantize_rows", "silu_mul_quantize"])
def test_activations_are_quantized_by_true_reciprocals_and_no_flushed_subnormal(kernel: str, capability: int) -> None:
    """As the oracle does: the last bit of a reciprocal decides codes, and an e2m1 code 1 passes as a subnormal."""
    assert lines(capability, kernel, r"\bdiv\.rn\.f32")
    assert not lines(capability, kernel, r"\.ftz|\bfma\.|rcp\.approx")


@pytest.mark.parametrize("kernel", ["quantize_rows", "expand_pairs", "silu_mul_quantize"])
def test_w4a4_kernels_move_words_not_bytes_and_keep_them_in_registers(kernel: str) -> None:
    assert len(lines(HOPPER, kernel, r"(ld|st)\.global\.v[24]\.b32")) >= 2
    found = resources(kernel)
    assert (found["STACK"], found["LOCAL"]) == (0, 0)
    assert found["REG"] <= 64, "two programs of 16 warps on a multiprocessor"


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_fp8_rows_move_in_wide_accesses_and_their_scales_are_true_quotients(capability: int) -> None:
    for kernel in ("quantize_fp8", "gather_fp8", "silu_mul_fp8"):
        assert lines(capability, kernel, r"ld\.global\.v4\.b32"), kernel
        assert lines(capability, kernel, r"st\.global\.v[24]\.b32"), kernel
    for kernel in ("quantize_fp8", "silu_mul_fp8"):
        assert lines(capability, kernel, r"\bdiv\.rn\.f32"), kernel
        assert not lines(capability, kernel, r"\bfma\."), kernel
    assert not lines(capability, "quantize_fp8", r"\b(div\.(full|approx)|rcp)"), "scales and codes alike"
