"""How fast the two grouped GEMMs of an NVFP4 MoE layer are, beside bf16 ``torch._grouped_mm`` on the same weights.

    PYTHONPATH=. python tools/gemm_rates.py [--shards deepseek-v3:8,qwen3-30b-a3b:1,ernie-4.5-300b-a47b:8]
                                            [--rows 64,1024] [--skew 0.0,1.0] [--room 8] [--repeats 20]

A shard is a model and its number of ranks; rows are the (row, expert) pairs of one rank, of tokens that draw top-k
experts at random, evenly or by rank^-skew (--skew). x and the outputs have room for --room times the rows: a layer
that receives for the worst case has R times those it expects of R ranks. Times are medians of replays of a CUDA graph
of the two GEMMs, L2 flushed before each. TFLOP/s count 2 P N K of both; GB/s the codes and scales of experts that have
rows, x and the outputs, once each. Beside each speed the difference from bf16, as relative Frobenius norm of gemm1 and
gemm2: both add the same exact products, so more than about 1e-3 is an error. Batch invariance has no price here: all
tiles add alike.
"""

import argparse
from dataclasses import dataclass

import torch
from layer_cost import replayed_s
from torch import Tensor

from bench.measure.cuda_timer import CudaEventTimer
from bench.measure.l2 import L2Flush
from moe_impl.kernels.nvfp4_fragments import UNIT, RepackedWeights, repack
from moe_impl.kernels.nvfp4_gemm import nvfp4_gemm, takes_wide
from moe_impl.kernels.nvfp4_grouped_gemm import WIDE_M, WIDE_N, tile_for
from moe_impl.nvfp4 import NvFp4Tensor, decode_bf16
from moe_impl.shapes import PRESETS, ModelShape

SHARDS = {
    "deepseek-v3:8": (64, 256, 1024, 4096, 16384, 32768),
    "qwen3-30b-a3b:1": (128, 2048, 8192, 32768),
    "ernie-4.5-300b-a47b:8": (64, 256, 1024, 4096, 16384),
}
"""Shard -> rows that are tried unless --rows names others: from few, all weights, to many, all compute."""
SCALE_BITS = (40, 80)
"""e4m3 bits of drawn block scales: 2^-2 to 2^3."""


@dataclass(frozen=True)
class Projection:
    """One GEMM's weights, for either kernel."""

    packed: RepackedWeights
    dense: Tensor
    """bf16 [L, N, K], as exact as the codes: the tensor scale is a power of two."""

    @classmethod
    def drawn(cls, L: int, N: int, K: int, generator: torch.Generator) -> "Projection":
        device = generator.device
        codes = torch.randint(0, 256, (L, N, K // 2), generator=generator, device=device, dtype=torch.uint8)
        scales = torch.randint(*SCALE_BITS, (L, N, K // 16), generator=generator, device=device, dtype=torch.uint8)
        weights = NvFp4Tensor(codes, scales.view(torch.float8_e4m3fn), torch.full((L,), 2.0**-8, device=device))
        dense = torch.empty(L, N, K, dtype=torch.bfloat16, device=device)
        for expert in range(L):
            dense[expert] = decode_bf16(codes[expert], weights.scales[expert]) * 2.0**-8
        return cls(repack(weights), dense)

    def bytes(self, experts: int, rows: int) -> int:
        """Read and written once, where so many experts have so many rows in all."""
        _, N, K = self.dense.shape
        return experts * N * (K // 2 + K // 16) + 2 * rows * (N + K)

    def flops(self, rows: int) -> int:
        _, N, K = self.dense.shape
        return 2 * rows * N * K


def drawn_counts(model: ModelShape, ep_size: int, rows: int, skew: float) -> Tensor:
    """Pairs of each expert of rank 0, so many in all: int64 [L]."""
    generator = torch.Generator().manual_seed(rows)
    L = model.num_experts // ep_size
    popularity = torch.arange(1, model.num_experts + 1).double().pow(-skew)
    popularity = popularity[torch.randperm(model.num_experts, generator=generator)]
    counts = torch.zeros(L, dtype=torch.int64)
    while (missing := rows - int(counts.sum())) > 0:
        tokens = max(1, missing // model.top_k + 1)
        chosen = torch.multinomial(popularity.expand(tokens, -1), model.top_k, generator=generator).flatten()
        counts += torch.bincount(chosen[chosen < L][:missing], minlength=L)
    return counts


def drawn_rows(rows: int, K: int, room: int, device: torch.device) -> Tensor:
    """x of so many pairs, bf16 [room * rows, K]; as in a layer, what lies past the pairs is undefined."""
    x_PK = torch.empty(room * rows, K, dtype=torch.bfloat16, device=device)
    x_PK[:rows] = torch.randn(rows, K, device=device)
    return x_PK


def difference(found: Tensor, expected: Tensor) -> float:
    """Relative Frobenius norm of what differs."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def tile_name(x_PK: Tensor, weights: RepackedWeights, pairs_per_expert: float) -> str:
    """Pairs x rows of weights x columns of a tile, and whose: a wide tile is the Gluon kernel's."""
    if takes_wide(x_PK, weights, pairs_per_expert):
        return f"wide {WIDE_M}x{WIDE_N}x{UNIT}"
    tile = tile_for(pairs_per_expert)
    return f"{tile.block_m}x{tile.block_n}x{tile.block_k}"


def line(gemms: tuple[Projection, Projection], counts: Tensor, room: int, flush: L2Flush, repeats: int) -> str:
    """One row of the table."""
    rows, ends_L = int(counts.sum()), counts.cumsum(0).int().cuda()
    timer, load = CudaEventTimer(), rows / len(counts)
    inputs = [drawn_rows(rows, gemm.dense.shape[2], room, ends_L.device) for gemm in gemms]

    def ours() -> list[Tensor]:
        return [nvfp4_gemm(x, gemm.packed, ends_L, load) for x, gemm in zip(inputs, gemms, strict=True)]

    def bf16() -> list[Tensor]:
        pairs = zip(inputs, gemms, strict=True)
        return [torch._grouped_mm(x, gemm.dense.transpose(1, 2), offs=ends_L) for x, gemm in pairs]

    differs = [f"{difference(a[:rows], b[:rows]):.0e}" for a, b in zip(ours(), bf16(), strict=True)]
    # The comparison warmed both up: nothing compiles while a graph is captured.
    ours_s, bf16_s = (replayed_s(issue, flush, timer, repeats) for issue in (ours, bf16))
    flops, used = sum(gemm.flops(rows) for gemm in gemms), int((counts > 0).sum())
    read = sum(gemm.bytes(used, rows) for gemm in gemms)
    cells = [f"{rows:6d}", f"{int(counts.max()):5d}", f"{bf16_s * 1e6:8.1f}", f"{ours_s * 1e6:8.1f}"]
    cells += [f"{bf16_s / ours_s:6.2f}x", f"{flops / ours_s / 1e12:8.0f}", f"{read / ours_s / 1e9:6.0f}"]
    tiles = [tile_name(x, gemm.packed, load) for x, gemm in zip(inputs, gemms, strict=True)]
    return " | ".join([*cells, " ".join(differs), " ".join(dict.fromkeys(tiles))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", default=",".join(SHARDS), help="model:ranks")
    parser.add_argument("--rows", help="instead of the shard's own")
    parser.add_argument("--skew", default="0")
    parser.add_argument("--room", type=int, default=1, help="x has room for so many times the rows")
    parser.add_argument("--repeats", type=int, default=20)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs a CUDA GPU")
    flush = L2Flush(torch.device("cuda"))
    print(torch.cuda.get_device_name())
    for shard in asked.shards.split(","):
        name, ep_size = shard.split(":")
        model, generator = PRESETS[name], torch.Generator("cuda").manual_seed(1)
        L, H, intermediate = model.num_experts // int(ep_size), model.hidden_size, model.intermediate_size
        gemms = (
            Projection.drawn(L, 2 * intermediate, H, generator),
            Projection.drawn(L, H, intermediate, generator),
        )
        print(f"\n{name} EP{ep_size}: {L} experts, {H} x {intermediate}")
        print("  rows |  most |  bf16 us |  ours us | speed-up | TFLOP/s |   GB/s | differs | tile")
        for rows in map(int, asked.rows.split(",")) if asked.rows else SHARDS.get(shard, (1024,)):
            for skew in map(float, asked.skew.split(",")):
                counts = drawn_counts(model, int(ep_size), rows, skew)
                print(line(gemms, counts, asked.room, flush, asked.repeats), flush=True)
        del gemms
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
