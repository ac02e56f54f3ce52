"""FLOPs and bytes of a case, one named term a line, and the memory it needs. Torch-free.

Counts are of the model (what the layer must do), not of an implementation's waste; ``expected`` row counts assume
balanced routing, also where a workload's is skewed, and are estimates, used by ``bench plan`` only.
"""

import math
from dataclasses import dataclass

from moe_impl.options import (
    NODE_RANKS,
    Copies,
    Direction,
    Precision,
    SkewedRouting,
    Variant,
    Workload,
    WorstCaseLayout,
)
from moe_impl.payload import FP8_SCALE_BYTES, row_bytes, stored_row_bytes
from moe_impl.shapes import NVFP4_BLOCK
from moe_impl.split import as_run, capacity_tokens, largest_share
from moe_impl.stages import Stage

BF16_BYTES = 2
NVFP4_BYTES = 0.5 + 1 / NVFP4_BLOCK
"""A 4-bit code and its share of the block's e4m3 scale; the per-tensor scale is negligible."""


@dataclass(frozen=True)
class Cost:
    """One term of the bill: what one stage of one layer computes and moves."""

    stage: Stage
    term: str
    flops: float = 0.0
    hbm_bytes: float = 0.0


FP8_BYTES = 1.0
"""The fp32 scale of an output channel is shared by its whole row: negligible."""


def weight_bytes_per_value(precision: Precision) -> float:
    """Bytes of one stored expert weight."""
    return {"bf16": BF16_BYTES, "fp8": FP8_BYTES}.get(precision, NVFP4_BYTES)


def expert_row_bytes(precision: Precision, width: int, as_codes: bool = False) -> int:
    """Bytes of a row of x or h as the expert GEMMs read it: FP8 with its scale, else bf16: W4A4 expands its codes,
    but for GEMMs that multiply them (``as_codes``)."""
    if as_codes:
        return row_bytes("nvfp4", width)
    return row_bytes("fp8" if precision == "fp8" else "bf16", width)


def received_row_bytes(workload: Workload) -> int:
    """Bytes of a row of x as ``permute`` reads it: W4A4's are 4-bit codes and scales, and are expanded there."""
    H = workload.model.hidden_size
    return stored_row_bytes("nvfp4", H) if workload.precision == "nvfp4" else expert_row_bytes(workload.precision, H)


def expected_copies(workload: Workload, copies: Copies = "rank") -> float:
    """Mean number of distinct ranks (or nodes) that hold a token's experts, for K distinct experts drawn evenly.

    Without groups R (1 - C(E - E/R, K) / C(E, K)), the formula of DeepEP V2. A router with groups is taken to draw
    evenly from ``top_groups`` evenly drawn groups; it rather takes the groups with the strongest experts, which makes
    up to a tenth more copies. Groups and ranks must nest: whole groups on a rank, or whole ranks in a group.
    """
    model = workload.model
    ranks = workload.ep_size if copies == "rank" else math.ceil(workload.ep_size / NODE_RANKS)
    grouped = workload.routing == "model"
    groups, top_groups = (model.router.num_groups, model.router.top_groups) if grouped else (1, 1)
    groups_here = max(1, groups // ranks)
    experts_a_group_here = model.num_experts // max(groups, ranks)
    drawn_from = model.num_experts * top_groups // groups
    missed = 0.0
    for chosen in range(min(groups_here, top_groups) + 1):
        ways = math.comb(groups_here, chosen) * math.comb(groups - groups_here, top_groups - chosen)
        others = drawn_from - chosen * experts_a_group_here
        odds = math.comb(others, model.top_k) / math.comb(drawn_from, model.top_k)
        missed += ways / math.comb(groups, top_groups) * odds
    return ranks * (1 - missed)


def layer_costs(workload: Workload, num_ubatches: int, as_codes: bool = False) -> list[Cost]:
    """The bill of one layer. Weights are read once per micro-batch: that is what a split costs.

    With few tokens not every expert is hit; expected experts = L (1 - (1 - K/E)^T_all) with T_all = R tokens a peer.

    Args:
        as_codes: W4A4 on FP4 tensor cores (:func:`moe_impl.support.multiplies_codes`): nothing is expanded, and
            permute moves no row, for gemm1 looks its rows up.
    """
    model = workload.model
    H, I, K = model.hidden_size, model.intermediate_size, model.top_k
    tokens = workload.tokens
    pairs = tokens * K  # balanced: what R ranks send here equals what this rank sends
    rows = tokens * expected_copies(workload)
    hit = 1 - (1 - K / model.num_experts) ** (workload.ep_size * tokens / num_ubatches)
    weight_reads = num_ubatches * workload.local_experts * hit * weight_bytes_per_value(workload.precision)
    sent = workload.payload_row_bytes("dispatch")
    x_bytes, h_bytes = (pairs * expert_row_bytes(workload.precision, width, as_codes) for width in (H, I))
    moved = [
        Cost(Stage.PERMUTE, "rows read", hbm_bytes=pairs * received_row_bytes(workload)),
        Cost(Stage.PERMUTE, "pairs written", hbm_bytes=x_bytes),
    ]
    return [
        *_attention_costs(workload, num_ubatches),
        Cost(Stage.ROUTE, "logits read", hbm_bytes=4 * tokens * model.num_experts),
        *_quantize_costs(workload, rows),
        Cost(Stage.DISPATCH, "rows read", hbm_bytes=sent * rows),
        Cost(Stage.DISPATCH, "rows written", hbm_bytes=sent * rows),
        *_shared_costs(workload, num_ubatches, as_codes),
        *([Cost(Stage.PERMUTE, "sorts alone")] if as_codes else moved),
        Cost(Stage.GEMM1, "2 * P * 2I * H", flops=4 * pairs * I * H),
        Cost(Stage.GEMM1, "weights", hbm_bytes=weight_reads * 2 * I * H),
        Cost(Stage.GEMM1, "pairs read", hbm_bytes=x_bytes),
        Cost(Stage.GEMM1, "gate and up written", hbm_bytes=BF16_BYTES * pairs * 2 * I),
        Cost(Stage.SILU_MUL, "gate and up read", hbm_bytes=BF16_BYTES * pairs * 2 * I),
        Cost(Stage.SILU_MUL, "h written", hbm_bytes=h_bytes),
        Cost(Stage.GEMM2, "2 * P * H * I", flops=2 * pairs * H * I),
        Cost(Stage.GEMM2, "weights", hbm_bytes=weight_reads * H * I),
        Cost(Stage.GEMM2, "h read", hbm_bytes=h_bytes),
        Cost(Stage.GEMM2, "expert outputs written", hbm_bytes=BF16_BYTES * pairs * H),
        Cost(Stage.REDUCE, "expert outputs read", hbm_bytes=BF16_BYTES * pairs * H),
        Cost(Stage.REDUCE, "partial sums written", hbm_bytes=BF16_BYTES * rows * H),
        Cost(Stage.COMBINE, "rows read", hbm_bytes=BF16_BYTES * rows * H),
        Cost(Stage.COMBINE, "rows written", hbm_bytes=BF16_BYTES * rows * H),
        Cost(Stage.MERGE, "rows read", hbm_bytes=BF16_BYTES * rows * H),
        Cost(Stage.MERGE, "y and next x written", hbm_bytes=2 * BF16_BYTES * tokens * H),
    ]


def _attention_costs(workload: Workload, num_ubatches: int) -> list[Cost]:
    """Weights, and in prefill the one cached sequence, are read (and expanded) once per micro-batch."""
    attention, tokens, H = workload.attention, workload.tokens, workload.model.hidden_size
    if attention is None or attention.shape is None:
        return []
    shape, context = attention.shape, attention.context
    decode = attention.phase == "decode"
    weights, sequence = attention_layer_bytes(workload)
    products = shape.products(attention.phase)
    expanded = 0 if decode else num_ubatches * context
    return [
        Cost(Stage.ATTENTION, "2 * T * projections", flops=2 * tokens * shape.projection_weights(H)),
        Cost(Stage.ATTENTION, "latent expanded, or absorbed", flops=2 * (expanded or tokens) * shape.expansion_weights),
        Cost(
            Stage.ATTENTION,
            "expanded keys and values written and read",
            hbm_bytes=2 * BF16_BYTES * expanded * shape.expanded_values,
        ),
        Cost(Stage.ATTENTION, "scores and values", flops=2 * tokens * context * products),
        Cost(Stage.ATTENTION, "weights", hbm_bytes=num_ubatches * weights),
        Cost(Stage.ATTENTION, "KV read", hbm_bytes=(tokens if decode else num_ubatches) * sequence),
        Cost(Stage.ATTENTION, "queries and values written and read", hbm_bytes=2 * BF16_BYTES * tokens * products),
        Cost(Stage.ATTENTION, "x read twice, output and next x written", hbm_bytes=5 * BF16_BYTES * tokens * H),
    ]


def _quantize_costs(workload: Workload, rows: float) -> list[Cost]:
    """Of the sent tokens, or of the received rows where bf16 travels."""
    if not workload.quantizes:
        return []
    H = workload.model.hidden_size
    count = workload.tokens if workload.dispatch_dtype != "bf16" else rows
    quantized = H + FP8_SCALE_BYTES if workload.precision == "fp8" else NVFP4_BYTES * H
    return [
        Cost(Stage.QUANTIZE, "rows read", hbm_bytes=BF16_BYTES * count * H),
        Cost(Stage.QUANTIZE, "rows written", hbm_bytes=quantized * count),
    ]


def _shared_costs(workload: Workload, num_ubatches: int, as_codes: bool) -> list[Cost]:
    """All tokens pass all shared experts; their weights are read once per micro-batch."""
    model, tokens = workload.model, workload.tokens
    width, H = model.shared_experts * model.intermediate_size, model.hidden_size
    if not width:
        return []
    weights = num_ubatches * 3 * H * width * weight_bytes_per_value(workload.precision)
    x_bytes, h_bytes = (tokens * expert_row_bytes(workload.precision, values, as_codes) for values in (H, width))
    return [
        Cost(Stage.SHARED, "2 * T * 3 * S I * H", flops=6 * tokens * width * H),
        Cost(Stage.SHARED, "weights", hbm_bytes=weights),
        Cost(Stage.SHARED, "x read, output written", hbm_bytes=2 * BF16_BYTES * tokens * H),
        Cost(Stage.SHARED, "gate and up written and read", hbm_bytes=2 * BF16_BYTES * tokens * 2 * width),
        Cost(Stage.SHARED, "h written and read", hbm_bytes=2 * h_bytes),
        *([Cost(Stage.SHARED, "x quantized, written and read", hbm_bytes=2 * x_bytes)] if workload.quantizes else []),
    ]


def transfer_bytes(workload: Workload, direction: Direction, copies: Copies = "rank") -> float:
    """Expected payload of one direction of one layer: all (token, rank) or (token, node) rows, the own included."""
    return workload.tokens * expected_copies(workload, copies) * workload.payload_row_bytes(direction)


@dataclass(frozen=True)
class Capacity:
    """Worst-case buffer sizes of one micro-batch: the most that can come from R ranks."""

    rows: int
    """R * tokens: every token of every rank sends a row here."""
    pairs: int
    """``packed``: each such row with as many of its K experts as this rank holds; ``per_expert``: with all of them."""


def worst_case(workload: Workload, tokens: int, layout: WorstCaseLayout = "packed") -> Capacity:
    """Capacity for a micro-batch of ``tokens`` tokens a rank."""
    rows = workload.ep_size * tokens
    if layout == "per_expert":
        return Capacity(rows, rows * workload.local_experts)
    return Capacity(rows, rows * min(workload.model.top_k, workload.local_experts))


def attention_flops(workload: Workload) -> tuple[float, float]:
    """Of one layer: what every token costs, and what every micro-batch costs on top."""
    once, twice = (sum(cost.flops for cost in _attention_costs(workload, ubatches)) for ubatches in (1, 2))
    return (2 * once - twice) / workload.tokens, twice - once


def attention_layer_bytes(workload: Workload) -> tuple[int, int]:
    """One layer's attention weights, and the KV of one sequence: bf16."""
    attention = workload.attention
    if attention is None or attention.shape is None:
        return 0, 0
    shape = attention.shape
    weights = shape.projection_weights(workload.model.hidden_size) + shape.expansion_weights
    return BF16_BYTES * weights, BF16_BYTES * attention.context * shape.cached_values


def attention_bytes(workload: Workload) -> int:
    """The attention stand-in's weights and KV of all layers, resident on the device."""
    weights, sequence = attention_layer_bytes(workload)
    sequences = 0 if workload.attention is None else workload.attention.sequences(workload.tokens)
    return workload.layers * (weights + sequences * sequence)


def weight_bytes(workload: Workload, *experts: str) -> int:
    """Expert weights resident on the device: as drawn (the oracle reads those), and in each backend's own layout.

    ``auto`` holds one while it is measured. It tries others beside it: what does not fit then is not chosen.
    """
    experts_here = workload.local_experts + workload.model.shared_experts
    values = workload.layers * experts_here * workload.model.expert_parameters
    drawn = values * weight_bytes_per_value(workload.precision)
    if not workload.precision.startswith("nvfp4"):
        return int(drawn)
    return int(drawn + sum(values * BF16_BYTES if name == "torch" else drawn for name in set(experts)))


def buffer_bytes(workload: Workload, variant: Variant) -> int:
    """Most bytes of activations alive at once: one micro-batch computes while the others hold received or sent rows.

    The largest micro-batch computes. Receive ``exact`` and split ``balanced`` are estimated for balanced routing,
    whatever the workload's.
    """
    model = workload.model
    tokens = largest_share(variant, workload.tokens)
    capacity = worst_case(workload, capacity_tokens(variant, workload.tokens), variant.worst_case_layout)
    others = (workload.tokens - tokens) / tokens
    if variant.max_tokens_per_rank is not None:  # all have the same room, however few tokens they hold
        others = as_run(variant, workload.tokens).split_factor - 1
    if variant.receive == "exact":
        capacity = Capacity(round(tokens * expected_copies(workload)), tokens * model.top_k)
    row = BF16_BYTES * model.hidden_size
    x_row, h = (expert_row_bytes(workload.precision, size) for size in (model.hidden_size, model.intermediate_size))
    gate_up = BF16_BYTES * 2 * model.intermediate_size
    rows, pairs = capacity.rows * row, capacity.pairs
    received = capacity.rows * stored_row_bytes(workload.dispatch_dtype, model.hidden_size)
    shared = tokens * (model.shared_experts * (gate_up + h) + row)
    computing = max(
        _attention_room(workload, tokens),
        received + (shared if model.shared_experts else 0),
        received + pairs * x_row,  # permute
        pairs * (x_row + gate_up),  # gemm1
        pairs * (gate_up + h),  # silu_mul
        pairs * (h + row),  # gemm2
        pairs * row + 2 * rows,  # reduce, which also makes the room for combine
    )
    waiting = int(2 * rows * others)
    inputs = (workload.layers * 4 * workload.tokens * model.num_experts) + 4 * workload.tokens * row
    return computing + waiting + inputs + peer_choices_bytes(workload)


def peer_choices_bytes(workload: Workload) -> int:
    """What peers of a skewed routing chose, held from before the first iteration on: ids and weights, all layers."""
    if not isinstance(workload.routing, SkewedRouting):
        return 0
    return workload.layers * workload.tokens * workload.ep_size * workload.model.top_k * 8


def _attention_room(workload: Workload, tokens: int) -> int:
    """What stage ``attention`` of one micro-batch allocates, next x included; queries and values may stand twice."""
    attention, H = workload.attention, workload.model.hidden_size
    if attention is None or attention.shape is None:
        return 0
    shape = attention.shape
    in_turns = shape.room_bytes(attention.context, tokens, attention.phase)
    return in_turns + BF16_BYTES * tokens * (2 * shape.products(attention.phase) + 3 * H)


def send_buffer_bytes(workload: Workload, variant: Variant) -> int:
    """Expected bytes of one micro-batch's packed rows, which links that pack keep while they leave."""
    return math.ceil(transfer_bytes(workload, "dispatch") * largest_share(variant, workload.tokens) / workload.tokens)
