"""Compile every Triton kernel for a GPU that need not be here. Run as a script, since the interpreter, which the rest
of the suite uses, is chosen when triton is imported.

    compile_kernels.py CAPABILITY [KERNEL ...]

prints JSON: kernel -> {"ptx": text, "resources": {"REG": registers a thread, "STACK": bytes spilled, ...}}; resources
are null where Triton ships no cuobjdump.
"""

import json
import re
import subprocess
import sys
import tempfile
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from moe_impl.kernels import (
    add_normalized,
    count_peers,
    expand_pairs,
    gather_fp8,
    gather_pairs,
    merge_rows,
    move_rows,
    notify,
    nvfp4_grouped_gemm,
    nvfp4_scaled_gemm,
    paced_link,
    quantize_fp8,
    quantize_rows,
    reduce_rows,
    route_tokens,
    scale_pairs,
    silu_mul,
    silu_mul_fp8,
    silu_mul_quantize,
    sort_pairs,
)
from moe_impl.kernels.launch import NO_FMA, row_warps
from moe_impl.options import NODE_RANKS
from moe_impl.support import has_fp4

# The warps of a row of 7168 values, and of 2048.
WIDE, NARROW = {"num_warps": row_warps(7168)}, {"num_warps": row_warps(2048)}
GEMM = {
    "L": 32,
    "EXPERTS": 32,
    "BLOCK_M": 128,
    "BLOCK_N": 128,
    "BLOCK_K": 128,
    "GROUP": 8,
    "ARITHMETIC": tl.bfloat16,
    "UNSHIFT": 2.0**16,
}


CHOOSE = {
    "E": 256,
    "EXPERTS": 256,
    "K": 8,
    "R": 8,
    "GROUPS": 8,
    "TOP_GROUPS": 4,
    "SIGMOID": True,
    "BIASED": True,
    "RENORMALIZE": True,
    "SCALE": 2.5,
    "NODE": NODE_RANKS,
    "TOKENS": route_tokens.TOKENS,
    "SLOTS": 8,
}
LAY_OUT = {"L": 32, "K": 8, "SLOTS": 8, "R": 8, "TOKENS": route_tokens.ROW_TOKENS}


def paced_tiles(width: int) -> dict[str, int]:
    return dict(zip(("BLOCK", "MORE", "FEW"), paced_link.tiles(width), strict=True))


KERNELS = {
    "choose_experts": (
        route_tokens.choose_kernel,
        "*fp32 *fp32 *i32 *fp32 *i32 *i32 i32",
        {**CHOOSE, "peer_experts": None, "PEERS": False},
        {},
    ),
    "choose_experts_beside_peers": (
        route_tokens.choose_kernel,
        "*fp32 *i32 *i32 *fp32 *i32 *i32 i32",
        {**CHOOSE, "GROUPS": 1, "TOP_GROUPS": 1, "bias": None, "BIASED": False, "PEERS": True},
        {},
    ),
    "lay_out_rows": (
        route_tokens.lay_out_kernel,
        "*i32 *fp32 *i32 *i32 *i32 *i32 *fp32 *i32 i32",
        {**LAY_OUT, "PEERS": False},
        {},
    ),
    "lay_out_rows_of_peers": (
        route_tokens.lay_out_kernel,
        "*i32 *fp32 *i32 *i32 *i32 *i32 *fp32 *i32 i32",
        {**LAY_OUT, "PEERS": True},
        {},
    ),
    "move_rows": (move_rows.move_rows_kernel, "*bf16 *bf16 *i32 *i32 i32", {"BLOCK": 8192, "GATHER": True}, WIDE),
    "paced_link": (
        paced_link.paced_link_kernel,
        "*bf16 *bf16 *i32 *i32 *i32 *i64 *i64 i32 i32 fp32 i32",
        {**paced_tiles(7168), "GATHER": True, "TRACE": False},
        {"num_warps": paced_link.WARPS, "maxnreg": paced_link.MAX_REGISTERS},
    ),
    "paced_link_nvfp4": (
        paced_link.paced_link_kernel,
        "*bf16 *bf16 *i32 *i32 *i32 *i64 *i64 i32 i32 fp32 i32",
        {**paced_tiles(2016), "GATHER": True, "TRACE": False},
        {"num_warps": paced_link.WARPS, "maxnreg": paced_link.MAX_REGISTERS},
    ),
    "silu_mul": (
        silu_mul.silu_mul_kernel,
        "*bf16 *bf16 *i32 *fp32 *fp32 i32 i32",
        {"L": 32, "EXPERTS": 32, "BLOCK": 2048, "SCALED": True, "PER_EXPERT": False},
        NARROW,
    ),
    "silu_mul_per_expert": (
        silu_mul.silu_mul_kernel,
        "*bf16 *bf16 *i32 *fp32 *fp32 i32 i32",
        {"L": 32, "EXPERTS": 32, "BLOCK": 2048, "SCALED": False, "PER_EXPERT": True},
        NARROW,
    ),
    "spread_pairs": (
        gather_pairs.spread_pairs_kernel,
        "*bf16 *bf16 *i32 *i32 i32 i32",
        {"L": 32, "EXPERTS": 32, "BLOCK": 8192},
        WIDE,
    ),
    "quantize_rows": (
        quantize_rows.quantize_rows_kernel,
        "*i32 *u8 *fp32 *i32 i32 i32 i32",
        {"BLOCKS": 512, "COUNTED": True},
        {**NO_FMA, **WIDE},
    ),
    "expand_pairs": (
        expand_pairs.expand_pairs_kernel,
        "*u8 *i32 *i32 *i32 i32 i32 i32",
        {"L": 32, "EXPERTS": 32, "BLOCKS": 512, "GATHER": True, "PER_EXPERT": False},
        WIDE,
    ),
    "silu_mul_quantize": (
        silu_mul_quantize.silu_mul_quantize_kernel,
        "*i32 *i32 *i32 *fp32 *fp32 i32 i32 i32",
        {"L": 32, "EXPERTS": 32, "BLOCKS": 128, "SCALED": True, "PER_EXPERT": True, "EXPANDED": True},
        {**NO_FMA, **NARROW},
    ),
    "silu_mul_quantize_to_codes": (
        silu_mul_quantize.silu_mul_quantize_kernel,
        "*i32 *u8 *i32 *fp32 *fp32 i32 i32 i32",
        {"L": 32, "EXPERTS": 32, "BLOCKS": 128, "SCALED": False, "PER_EXPERT": False, "EXPANDED": False},
        {**NO_FMA, **NARROW},
    ),
    "scale_pairs": (
        scale_pairs.scale_pairs_kernel,
        "*bf16 *i32 *fp32 i32",
        {"L": 32, "EXPERTS": 32, "BLOCK": 8192},
        WIDE,
    ),
    "quantize_fp8": (
        quantize_fp8.quantize_fp8_kernel,
        "*bf16 *u8 *fp32 *i32 i32 i32 i32",
        {"BLOCK": 8192, "COUNTED": True},
        {**NO_FMA, **WIDE},
    ),
    "gather_fp8": (
        gather_fp8.gather_fp8_kernel,
        "*u8 *fp32 *i32 *i32 *u8 *fp32 i32 i32",
        {"BLOCK": 8192, "GATHER": True},
        WIDE,
    ),
    "silu_mul_fp8": (
        silu_mul_fp8.silu_mul_fp8_kernel,
        "*bf16 *u8 *fp32 *i32 i32",
        {"BLOCK": 2048},
        {**NO_FMA, **NARROW},
    ),
    "count_peers": (
        count_peers.count_peers_kernel,
        "*i32 *i32 *i32 i32",
        {"K": 8, "SLOTS": 8, "R": 8, "TOKENS": count_peers.TOKENS},
        {},
    ),
    "notify": (notify.notify_kernel, "*i32 *i32 *i64 i32", {"BITS": notify.COUNT_BITS}, {"num_warps": 1}),
    "reduce_rows": (
        reduce_rows.reduce_rows_kernel,
        "*bf16 *i32 *fp32 *bf16 *i32 i32",
        {"K": 8, "BLOCK": 8192},
        {**NO_FMA, **WIDE},
    ),
    "merge_rows": (
        merge_rows.merge_rows_kernel,
        "*bf16 *bf16 *i32 *bf16 *bf16 *bf16 i32",
        {"R": 8, "BLOCK": 8192, "SHARED": True},
        WIDE,
    ),
    "add_normalized": (
        add_normalized.add_normalized_kernel,
        "*bf16 *bf16 *bf16 i32",
        {"BLOCK": 8192},
        {**NO_FMA, **WIDE},
    ),
    "count_pairs": (
        sort_pairs.count_kernel,
        "*i32 *i32 *i32 i32",
        {"K": 8, "L": 32, "SLOTS": sort_pairs.SLOTS, "EXPERTS": 32},
        {},
    ),
    "place_pairs": (
        sort_pairs.place_kernel,
        "*i32 *i32 *i32 *i32 *i32 *i32 i32 i32",
        {"K": 8, "L": 32, "SLOTS": sort_pairs.SLOTS, "EXPERTS": 32, "PROGRAMS": 256, "PER_EXPERT": False},
        {},
    ),
}


def scaled_gemm(pairs_per_expert: float, leaves_sms: bool) -> tuple[Any, str, dict[str, Any], dict[str, int]]:
    """FP4 tensor cores where the GPU has them, else what stands in for them."""
    tile = nvfp4_scaled_gemm.scaled_tile_for(pairs_per_expert)
    constants = {**GEMM, "BLOCK_M": tile.block_m, "BLOCK_K": tile.block_k, "GATHER": True, "FP4": True}
    constants |= {"PER_EXPERT": not leaves_sms}
    constants |= {"LEAVES_SMS": leaves_sms} if leaves_sms else {"LEAVES_SMS": leaves_sms, "sms": None}
    types = "*u8 *i32 *u8 *u8 *fp32 *i32 *bf16 " + ("*i32 " if leaves_sms else "") + "i32 i32 i32 i32 i32"
    launch = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    return nvfp4_scaled_gemm.nvfp4_scaled_gemm_kernel, types, constants, launch


def grouped_gemm(pairs_per_expert: float, **switched: bool) -> tuple[Any, str, dict[str, Any], dict[str, int]]:
    """The tile for that load, and what is switched on of the kernel's ways."""
    tile = nvfp4_grouped_gemm.tile_for(pairs_per_expert)
    constants = {**GEMM, "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_k}
    constants |= {"BY_TMA": tile.by_tma, "PER_EXPERT": False, "LEAVES_SMS": False, "LOOPS": False, **switched}
    if not constants["LEAVES_SMS"]:
        constants["sms"] = None
    x = f"tensordesc<bf16[{tile.block_m},{tile.block_k}]>" if tile.by_tma else "*bf16"
    types = f"{x} *i32 *i32 *fp32 *i32 *bf16 " + ("*i32 " if constants["LEAVES_SMS"] else "") + "i32 i32 i32 i32"
    launch = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    return nvfp4_grouped_gemm.nvfp4_grouped_gemm_kernel, types, constants, launch


KERNELS |= {
    "nvfp4_grouped_gemm": grouped_gemm(1000),
    "nvfp4_grouped_gemm_64": grouped_gemm(64),
    "nvfp4_grouped_gemm_32": grouped_gemm(32),
    "nvfp4_grouped_gemm_2": grouped_gemm(2),
    "nvfp4_grouped_gemm_per_expert": grouped_gemm(1000, PER_EXPERT=True, LOOPS=True),
    "nvfp4_grouped_gemm_leaving_sms": grouped_gemm(1000, LEAVES_SMS=True),
    "nvfp4_scaled_gemm": scaled_gemm(1000, False),
    "nvfp4_scaled_gemm_64": scaled_gemm(64, False),
    "nvfp4_scaled_gemm_32": scaled_gemm(32, False),
    "nvfp4_scaled_gemm_leaving_sms": scaled_gemm(1000, True),
}


def compile_kernel(name: str, capability: int) -> triton.compiler.CompiledKernel:
    kernel, types, constants, options = KERNELS[name]
    if "FP4" in constants:
        constants = constants | {"FP4": has_fp4(divmod(capability, 10))}
    arguments = [parameter for parameter in kernel.arg_names if parameter not in constants]
    given = dict(zip(arguments, types.split(), strict=True))
    signature = {argument: given.get(argument, "constexpr") for argument in kernel.arg_names}
    # Row widths and row bytes are multiples of 16 in use, as are torch's pointers: what the launcher would specialise.
    attributes = {
        (position,): [["tt.divisibility", 16]]
        for position, (argument, kind) in enumerate(signature.items())
        if kind.startswith("*") or (kind == "i32" and argument in ("width", "row_bytes", "N", "K", "half"))
    }
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(compiled: triton.compiler.CompiledKernel) -> dict[str, int] | None:
    """What ptxas gave the kernel, read from the cubin."""
    try:
        cuobjdump = triton.knobs.nvidia.cuobjdump.path
    except RuntimeError:  # triton found none
        return None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        text = subprocess.run([cuobjdump, "-res-usage", cubin.name], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)}


def main(capability: int, names: list[str]) -> None:
    found = {}
    for name in names or KERNELS:
        compiled = compile_kernel(name, capability)
        found[name] = {"ptx": compiled.asm["ptx"], "resources": resources(compiled)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
