"""Compile the wide GEMM for Hopper, for a GPU that need not be here. Run as a script, like compile_kernels.py.

prints JSON: {"ptx": text, "resources": {...}, "shared": bytes}, for packed pairs, layout per_expert and the most
experts that the wide kernel takes.
"""

import json

import triton
from compile_kernels import resources
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource

from moe_impl.kernels import nvfp4_wide_gemm as wide
from moe_impl.kernels.nvfp4_gemm import WIDE_EXPERTS
from moe_impl.kernels.nvfp4_grouped_gemm import WIDE_M, WIDE_N

TYPES = {
    "x": f"tensordesc<bf16[{WIDE_M}, 64],{wide.X.value}>",
    "codes": f"tensordesc<i32[{WIDE_N // 64}, 2, 256],{wide.CODES.value}>",
    "scales": f"tensordesc<i32[{WIDE_N // 64}, 64],{wide.SCALES.value}>",
    "global_scale": "*fp32",
    "ends_L": "*i32",
    "out": "*bf16",
    "N": "i32",
    "K": "i32",
    "expert_stride": "i32",
    "num_sms": "i32",
    "program_steps": "i32",
}
CONSTANTS = {
    "BLOCK_M": WIDE_M,
    "BLOCK_N": WIDE_N,
    "GROUP": wide.GROUP,
    "STAGES": wide.STAGES,
    "LEAD": wide.LEAD,
    "UNSHIFT": 2.0**16,
    "MULTIPLIER_REGISTERS": wide.MULTIPLIER_REGISTERS,
    "COPIER_REGISTERS": wide.COPIER_REGISTERS,
}
ALIGNED = ("global_scale", "ends_L", "out", "N", "K", "program_steps")


def compiled(L: int, per_expert: bool) -> triton.compiler.CompiledKernel:
    kernel = wide.nvfp4_wide_gemm_kernel
    signature = {name: TYPES.get(name, "constexpr") for name in kernel.arg_names}
    attributes = {
        (position,): [["tt.divisibility", 16]] for position, name in enumerate(kernel.arg_names) if name in ALIGNED
    }
    constants = {**CONSTANTS, "L": L, "EXPERTS": max(32, L), "PER_EXPERT": per_expert}
    source = GluonASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})


def main() -> None:
    found = {}
    cases = (("packed", 32, False), ("per_expert", 8, True), ("most_experts", WIDE_EXPERTS, False))
    for name, L, per_expert in cases:
        kernel = compiled(L, per_expert)
        found[name] = {
            "ptx": kernel.asm["ptx"],
            "resources": resources(kernel),
            "shared": kernel.metadata.shared,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
