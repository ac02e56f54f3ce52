"""The one place that refuses combinations, and the labels a supported one must carry. Torch-free."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

from moe_impl import costs
from moe_impl.options import (
    OWN_WEIGHTS,
    BackendName,
    Direction,
    Link,
    Machine,
    Precision,
    SkewedRouting,
    Variant,
    Workload,
    default_experts,
)
from moe_impl.payload import PayloadDtype
from moe_impl.split import turned_off

MEMORY_SHARE = 0.92
"""Of the device memory; the rest is the context's, the allocator's and the oracle's."""
MEMORY_NEED = "needs about"
"""How the reason of a skip for lack of memory begins: stored runs are searched for it."""

DISPATCH_DTYPES: dict[Precision, tuple[PayloadDtype, ...]] = {
    "bf16": ("bf16",),
    "fp8": ("fp8", "bf16"),
    "nvfp4-w4a16": ("bf16",),
    "nvfp4": ("nvfp4", "bf16"),
}
"""What may travel: what the experts read, or bf16, which is then quantized after dispatch to the same bits."""

EMULATED = "emulated (exact products)"
NATIVE = "native (FP4 tensor cores)"
MODELLED_COMM = "modelled comm, measured compute"
MEASURED_COMM = "measured comm (host link)"
ALL_TO_ALL = {"cuda": "measured comm (NCCL all-to-all)", "cpu": "measured comm (gloo all-to-all)"}
PREDRAWN_SIZES = "sizes from the pre-drawn routing"
"""Receive ``worst_case`` tells the host no counts, but it issues the copies of ``host_link`` and ``collective``."""
BF16_TRAFFIC = "bf16 weight traffic"
CPU_ONLY = "cpu: functional check, no performance claim"
SKEWED = "skewed routing"
TBO_OFF = "TBO turned itself off"
"""Fewer tokens than the variant's split wants: it ran unsplit and serial, so its row says nothing about TBO."""
MOST_UBATCHES = 64
"""Far beyond any use; a schedule lists every op of every micro-batch."""
MOST_COUNTED = 2**24
"""The word that tells the host its counts has 24 bits for each."""
NODE_COPIES_EP = (16, 32)
"""Two and four nodes: what links that count node copies were measured on, and fewer than two have no network."""
HOST_WAITS = "host waits for counts"
PACED_WIDTH = 8192
"""Values of a row that a paced CTA holds in its registers."""
FP8_CAPABILITY = (9, 0)
"""What ``torch._scaled_grouped_mm`` with scales by row is built for; torch lets Blackwell pass, where it traps."""
FP4_MAJORS = (10, 12)
"""Compute capabilities whose tensor cores multiply NVFP4 codes (sm_100, sm_103; sm_120, sm_121)."""
GRAPH_TORCH = (2, 10)
"""The first torch whose graphs keep the priority of the stream that a kernel was captured on (pytorch#167346)."""
GROUPED_MM_MAJORS = (9, 10)
"""Compute capabilities on which torch's grouped matmuls read the counts on the device, not on the host."""
NVFP4_LANE = 64
"""The triton kernel splits K into blocks of 64 codes at least."""
HUMMING_LANE = 128
"""Humming's tiles are at least as wide in N and divide it, and gemm1's K is gemm2's N."""
UNBOUNDED = (
    Machine(
        "cuda",
        "any GPU",
        2**80,
        sm_count=2**32,
        capability=FP8_CAPABILITY,
        triton_version="any",
        humming_version="any",
    ),
    Machine("cpu", "any processor", 2**80),
)
"""Machines that lack nothing that a machine can have: what neither can run is refused by its reason, on any."""


def unsupported_reason(workload: Workload, link: Link, variant: Variant, machine: Machine) -> str | None:
    """Why this combination cannot run on this machine, in one clause, or None if it can."""
    return (
        _no_workload_reason(workload, link)
        or _no_variant_reason(workload, link, variant, machine)
        or _no_link_reason(workload, link, machine)
        or _no_device_reason(workload, link, variant, machine)
        or _no_memory_reason(workload, link, variant, machine)
    )


def choices(workload: Workload, link: Link, variants: Iterable[Variant], machine: Machine) -> tuple[BackendName, ...]:
    """The backends that ``experts: auto`` may become: those that run all of these variants here."""
    return tuple(
        name
        for name in OWN_WEIGHTS[workload.precision]
        if all(unsupported_reason(workload, link, replace(one, experts=name), machine) is None for one in variants)
    )


def _no_workload_reason(workload: Workload, link: Link) -> str | None:
    """Why no variant can run this workload over this link."""
    model = workload.model
    if workload.dispatch_dtype not in DISPATCH_DTYPES[workload.precision]:
        legal = " or ".join(DISPATCH_DTYPES[workload.precision])
        return f"precision {workload.precision} dispatches {legal}, not {workload.dispatch_dtype}"
    if model.num_experts % workload.ep_size:
        return f"ep_size {workload.ep_size} does not divide {model.num_experts} experts"
    if isinstance(workload.routing, SkewedRouting):
        reason = _unplayable_reason(workload.routing, workload.ep_size, link)
        if reason is not None:
            return reason
    if workload.attention is not None and workload.attention.shape is None:
        return f"attention needs a model preset, which has an attention shape; {model.name} has none"
    return None


def _no_variant_reason(workload: Workload, link: Link, variant: Variant, machine: Machine) -> str | None:
    """Why this split, receive mode or expert backend cannot run this workload here."""
    if variant.split_factor > MOST_UBATCHES:
        return f"split_factor {variant.split_factor}: at most {MOST_UBATCHES} micro-batches"
    if variant.split.policy == "ratio" and variant.split_factor != 2:
        return f"split ratio cuts a batch in 2, not in {variant.split_factor}"
    if variant.receive == "exact" and costs.worst_case(workload, workload.tokens).pairs >= MOST_COUNTED:
        return f"receive exact counts fewer than {MOST_COUNTED} pairs"
    if variant.experts == "auto":
        one_by_one = [replace(variant, experts=name) for name in OWN_WEIGHTS[workload.precision]]
        reasons = [unsupported_reason(workload, link, one, machine) for one in one_by_one]
        if None not in reasons:
            return reasons[0]
    if variant.experts == "humming":
        reason = _no_humming_reason(workload, variant, machine)
        if reason is not None:
            return reason
    if variant.experts == "triton" and not workload.precision.startswith("nvfp4"):
        return f"experts triton reads NVFP4 weights; {workload.precision} runs on experts torch"
    if variant.max_tokens_per_rank is not None and variant.max_tokens_per_rank < workload.tokens:
        return f"max_tokens_per_rank {variant.max_tokens_per_rank} has no room for {workload.tokens} tokens"
    if variant.worst_case_layout == "per_expert" and variant.experts not in ("triton", "auto"):
        return f"worst_case_layout per_expert needs experts triton, got {variant.experts}"
    if variant.experts == "triton":
        for size in ("hidden_size", "intermediate_size"):
            if (found := getattr(workload.model, size)) % NVFP4_LANE:
                return f"experts triton needs {size} to be a multiple of {NVFP4_LANE}, got {found}"
        if machine.device != "cuda":
            return "experts triton needs a CUDA GPU"
    return None


def _no_link_reason(workload: Workload, link: Link, machine: Machine) -> str | None:
    """Why this link cannot carry this workload's rows here."""
    if link.transport == "host_link" and machine.device != "cuda":
        return "link host_link needs a CUDA GPU"
    if link.transport == "collective":
        if workload.ep_size == 1:
            return "link collective needs at least 2 ranks, got ep_size 1"
        if machine.ranks != workload.ep_size:
            how = f"one a rank: bench sweep --nproc {workload.ep_size} (or another ep_size)"
            return f"link collective needs {workload.ep_size} processes, {how}, got {machine.ranks}"
    elif machine.ranks > 1:
        return f"link {link.transport} stands for one rank: run it without --nproc"
    if link.copies == "node" and workload.ep_size not in NODE_COPIES_EP:
        return f"link counts (token, node) rows: ep_size must be 16 or 32, got {workload.ep_size}"
    if link.transport == "paced":
        for direction in get_args(Direction):
            dtype = workload.payload_dtype(direction)
            if not any(time.direction == direction and time.dtype in (None, dtype) for time in link.times):
                return f"link has no {direction} time for {dtype} rows"
    return None


def _no_device_reason(workload: Workload, link: Link, variant: Variant, machine: Machine) -> str | None:
    """What this device lacks: software, compute capability, SMs, CUDA graphs."""
    if machine.device == "cuda":
        if machine.triton_version is None:
            return "CUDA stages need triton, which is not installed"
        if machine.capability is not None and machine.capability < (8, 0):
            return f"bf16 needs compute capability 8.0, this GPU has {'.'.join(map(str, machine.capability))}"
        if workload.precision == "fp8" and machine.capability is not None and machine.capability != FP8_CAPABILITY:
            wanted, found = (".".join(map(str, one)) for one in (FP8_CAPABILITY, machine.capability))
            return f"precision fp8 on a GPU needs compute capability {wanted}, this GPU has {found}"
        if link.transport == "paced" and workload.model.hidden_size > PACED_WIDTH:
            return f"link paced moves rows of up to {PACED_WIDTH} values on a GPU, got {workload.model.hidden_size}"
        if link.comm_sms >= machine.sm_count:
            return f"link occupies {link.comm_sms} of the GPU's {machine.sm_count} SMs"
        if variant.reserve_sms >= machine.sm_count:
            return f"reserve_sms {variant.reserve_sms} leaves compute none of the GPU's {machine.sm_count} SMs"
    elif variant.reserve_sms:
        return f"reserve_sms {variant.reserve_sms} leaves SMs free: needs a CUDA GPU"
    if variant.launch == "graph":
        return _uncapturable_reason(link, variant, machine)
    return None


def _no_memory_reason(workload: Workload, link: Link, variant: Variant, machine: Machine) -> str | None:
    """What this needs of the device's memory, where that is too little."""
    need = costs.weight_bytes(workload, variant.experts) + _activation_bytes(workload, variant)
    need += costs.attention_bytes(workload)
    if link.transport in ("host_link", "collective"):
        need += costs.send_buffer_bytes(workload, variant)
    if machine.device == "cpu":  # all ranks share its memory
        need *= machine.ranks
    if need > MEMORY_SHARE * machine.memory_bytes:
        return f"{MEMORY_NEED} {need / 2**30:.1f} GiB of {machine.memory_bytes / 2**30:.1f} GiB"
    return None


def _no_humming_reason(workload: Workload, variant: Variant, machine: Machine) -> str | None:
    """Why humming's kernels cannot run this here."""
    if "humming" not in OWN_WEIGHTS[workload.precision]:
        usual = default_experts(workload.precision)
        return f"experts humming reads NVFP4 weights and bf16 rows; {workload.precision} runs on experts {usual}"
    if variant.reserve_sms:
        return f"reserve_sms {variant.reserve_sms} needs experts torch or triton, got humming"
    for size in ("hidden_size", "intermediate_size"):
        if (found := getattr(workload.model, size)) % HUMMING_LANE:
            return f"experts humming needs {size} to be a multiple of {HUMMING_LANE}, got {found}"
    if machine.device != "cuda":
        return "experts humming needs a CUDA GPU"
    if machine.humming_version is None:
        return "experts humming needs humming-kernels, which is not installed (extra peers)"
    return None


def _uncapturable_reason(link: Link, variant: Variant, machine: Machine) -> str | None:
    """Why this variant cannot be captured as a CUDA graph."""
    if variant.engine == "threads":
        return "launch graph captures what one host thread issues: engine must be streams or serial, got threads"
    if variant.receive == "exact":
        return "launch graph has no host that waits for counts: receive must be worst_case, got exact"
    if link.transport == "collective":
        return "launch graph does not capture a collective: link must be local, paced or host_link, got collective"
    if machine.device != "cuda":
        return "launch graph needs a CUDA GPU"
    found = re.match(r"(\d+)\.(\d+)", machine.torch_version)
    if found is not None and (int(found[1]), int(found[2])) < GRAPH_TORCH:
        wanted = ".".join(map(str, GRAPH_TORCH))
        return f"launch graph needs torch {wanted}, which keeps stream priorities, got {machine.torch_version}"
    if variant.experts == "torch" and machine.capability is not None and machine.capability[0] not in GROUPED_MM_MAJORS:
        capability = ".".join(map(str, machine.capability))
        return f"launch graph: on compute capability {capability} torch's grouped matmul waits for the host"
    return None


def _activation_bytes(workload: Workload, variant: Variant) -> int:
    """Of one run; of a graph, whose memory stays its own, also those of the T1 and T2s that run beside it."""
    beside = {variant.unsplit(), variant.split_serial()} if variant.launch == "graph" else set()
    return sum(costs.buffer_bytes(workload, one) for one in {variant, *beside})


def impossible_reason(workload: Workload, link: Link, variant: Variant) -> str | None:
    """Why no machine can run this combination, or None if some could."""
    ranks = workload.ep_size if link.transport == "collective" else 1
    reasons = [unsupported_reason(workload, link, variant, replace(machine, ranks=ranks)) for machine in UNBOUNDED]
    return None if None in reasons else reasons[0]


def _unplayable_reason(routing: SkewedRouting, ep_size: int, link: Link) -> str | None:
    """Why this process cannot be the rank that a skewed routing names, over this link."""
    if not isinstance(routing.rank, str) and routing.rank >= ep_size:
        return f"routing has rank {routing.rank}: ep_size {ep_size} has ranks 0..{ep_size - 1}"
    if link.transport == "collective" and routing.rank != "hottest":
        return f"link collective runs every rank: skewed routing takes no rank there, got {routing.rank}"
    if link.copies == "node":
        return f"link counts (token, node) rows: routing must be model or uniform, got {routing}"
    return None


def labels(workload: Workload, link: Link, variant: Variant, machine: Machine) -> tuple[str, ...]:
    """What every number of this combination must say of itself."""
    said = list(limits(workload, variant, machine))
    if workload.precision.startswith("nvfp4"):
        said.append(NATIVE if multiplies_codes(workload, variant, machine) else EMULATED)
    if variant.receive == "exact":
        said.append(HOST_WAITS)
    if link.transport == "paced":
        said.append(MODELLED_COMM)
        if link.gpu is not None and not re.search(rf"\b{re.escape(link.gpu)}\b", machine.name):  # H20 is no H200
            said.append(f"hypothetical: link of {link.gpu}")
    said += [note for note in (link.note, workload.model.note) if note is not None]
    if isinstance(workload.routing, SkewedRouting):
        said.append(_skew_label(workload.routing, link))
    said += _attention_labels(workload)
    if link.transport == "host_link":
        said.append(MEASURED_COMM)
    if link.transport == "collective":
        said.append(ALL_TO_ALL[machine.device])
    if link.transport in ("host_link", "collective") and variant.receive == "worst_case":
        said.append(PREDRAWN_SIZES)
    return tuple(said)


def has_fp4(capability: tuple[int, int] | None) -> bool:
    """Whether the tensor cores of a GPU multiply NVFP4 codes.

    Args:
        capability: its CUDA compute capability; None: no GPU.
    """
    return capability is not None and capability[0] in FP4_MAJORS


def multiplies_codes(workload: Workload, variant: Variant, machine: Machine) -> bool:
    """Whether the expert GEMMs run on FP4 tensor cores: W4A4 alone has codes on both sides."""
    capable = has_fp4(machine.capability)
    return capable and workload.precision == "nvfp4" and variant.experts in ("triton", "auto")


def _skew_label(routing: SkewedRouting, link: Link) -> str:
    if link.transport == "collective":
        return f"{SKEWED}: every rank its own load"
    return f"{SKEWED}: plays {f'the {routing.rank} rank' if isinstance(routing.rank, str) else f'rank {routing.rank}'}"


def _attention_labels(workload: Workload) -> list[str]:
    """Its FLOPs and bytes, in numbers that hold for any number of tokens."""
    attention = workload.attention
    if attention is None or attention.shape is None:
        return []
    token_flops, ubatch_flops = costs.attention_flops(workload)
    weights, sequence = costs.attention_layer_bytes(workload)
    once = f" + {ubatch_flops / 1e9:.3g} GFLOP a micro-batch" if ubatch_flops else ""
    reader = "token" if attention.phase == "decode" else "micro-batch"
    said = (
        f"attention stand-in: {attention.shape.kind} {attention.phase} over {attention.context} cached tokens; "
        f"a layer: {token_flops / 1e9:.3g} GFLOP a token{once}, {weights / 1e6:.3g} MB of weights, "
        f"{sequence / 1e6:.3g} MB of KV a {reader}"
    )
    return [said, *([] if attention.shape.note is None else [attention.shape.note])]


def limits(workload: Workload, variant: Variant, machine: Machine) -> tuple[str, ...]:
    """Why this combination's times may not be used for advice (break-even); empty if they may."""
    reasons = []
    if turned_off(variant, workload.tokens):
        reasons.append(TBO_OFF)
    if machine.device == "cpu":
        reasons.append(CPU_ONLY)
    if variant.experts == "torch" and workload.precision.startswith("nvfp4"):
        reasons.append(BF16_TRAFFIC)
    return tuple(reasons)
