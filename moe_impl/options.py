"""What can be chosen: Workload, Link and Variant, as frozen dataclasses. Torch-free.

A *Workload* field changes the expected output; a *Link* says how rows travel; a *Variant* is what an operator can
switch without changing the answer. All quantities are SI, the unit in the name. A field whose metadata says
``identity: False`` is for people only and stays out of case and variant ids.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from moe_impl.attention_shapes import ATTENTION_SHAPES, AttentionShape, Phase
from moe_impl.payload import PayloadDtype, row_bytes
from moe_impl.shapes import ModelShape

Precision = Literal["bf16", "fp8", "nvfp4-w4a16", "nvfp4"]
RoutingKind = Literal["model", "uniform"]
Skew = Literal["zipf", "hotspot"]
ChosenRank = Literal["hottest", "mean"]
Transport = Literal["local", "paced", "host_link", "collective"]
Direction = Literal["dispatch", "combine"]
Copies = Literal["rank", "node"]
Engine = Literal["serial", "threads", "streams"]
Receive = Literal["worst_case", "exact"]
Launch = Literal["eager", "graph"]
BackendName = Literal["torch", "triton", "humming"]
ExpertsName = Literal[BackendName, "auto"]
"""``auto``: the fastest of those that read the precision's own weights, chosen once a case before it is measured."""
Order = Literal["yield_before", "yield_after", "sglang_prefill", "sglang_decode", "vllm"]
CommPriority = Literal["high", "default"]
WorstCaseLayout = Literal["packed", "per_expert"]
SplitName = Literal["equal", "balanced", "ratio"]
Role = Literal["T1", "T2s", "T2o"]

FOR_PEOPLE: dict[str, Any] = {"identity": False}
NODE_RANKS = 8
"""GPUs, so ranks, of a node: what a link that counts node copies means by one."""

DISPATCH_DTYPE: dict[Precision, PayloadDtype] = {
    "bf16": "bf16",
    "fp8": "fp8",
    "nvfp4-w4a16": "bf16",
    "nvfp4": "nvfp4",
}
"""What travels where a workload names nothing else: what the experts read."""

MOST_ZIPF = 8.0
"""Far beyond any load; scores of the rarest of thousands of experts would come near what fp32 rounds to 0."""
DEFAULT_ORDER: dict[Receive, Order] = {"worst_case": "yield_after", "exact": "yield_before"}
"""FastDeploy's PR #7259 hands over after dispatch and combine when ``num_worst_tokens`` > 0, else before them: a
dispatch that waits for its counts blocks the host, and the other batch's compute must be queued by then."""


@dataclass(frozen=True)
class Attention:
    """The attention stand-in in front of every layer: projections, and attention over KV that exists beforehand.

    Every token attends to the whole context and to no new token, and nothing is written to the context: micro-batches
    are independent of one another.
    """

    context: int
    """Cached tokens that each token attends to, at least 1."""
    phase: Phase = "prefill"
    """``prefill``: the tokens follow one cached sequence; ``decode``: each follows a sequence of its own."""
    shape: AttentionShape | None = None
    """None: the model preset's; still None in a workload whose model has none, which ``support`` refuses."""

    def __str__(self) -> str:
        """``decode-4096``: without space or comma, for labels and ``--filter``."""
        return f"{self.phase}-{self.context}"

    def sequences(self, tokens: int) -> int:
        """Cached sequences that ``tokens`` tokens read."""
        return tokens if self.phase == "decode" else 1


@dataclass(frozen=True)
class SkewedRouting:
    """Routing that prefers some experts, and which rank of the group this process then is: they differ in load.

    All peers share the preferred experts, which each layer draws anew, and route their own tokens for themselves
    (:mod:`moe_impl.skew`).

    Raises:
        ValueError: an amount that the kind does not have, or a negative rank, naming the field.
    """

    kind: Skew
    """``zipf``: the expert at position i of a drawn order is chosen with a weight of 1 / i ** ``amount``; ``hotspot``:
    a share ``amount`` of the tokens has one drawn expert among its K for sure, all others are alike."""
    amount: float
    rank: int | ChosenRank = "hottest"
    """``hottest``: the rank that receives the most (row, expert) pairs; ``mean``: the one whose rows are nearest to the
    mean; or a rank of its own choice. Means nothing where all ranks are processes (link ``collective``)."""

    def __post_init__(self) -> None:
        most = MOST_ZIPF if self.kind == "zipf" else 1.0
        if not 0 < self.amount <= most:
            raise ValueError(f"amount must be above 0 and at most {most:g} for {self.kind}, got {self.amount:g}")
        object.__setattr__(self, "amount", float(self.amount))  # 1 and 1.0 are one case, with one id
        if not isinstance(self.rank, str) and self.rank < 0:
            raise ValueError(f"rank must not be negative, got {self.rank}")

    def __str__(self) -> str:
        """``zipf-1-hottest``, ``hotspot-0.3-rank5``: without space or comma, for labels and ``--filter``."""
        return f"{self.kind}-{self.amount:g}-{self.rank if isinstance(self.rank, str) else f'rank{self.rank}'}"


@dataclass(frozen=True)
class Workload:
    """The layer stack to run. Changing a field changes the expected output."""

    model: ModelShape
    ep_size: int
    layers: int
    """Each with its own weights."""
    tokens: int
    """T, tokens of this rank in one forward."""
    precision: Precision
    """Of the expert GEMMs: ``nvfp4`` is W4A4, ``nvfp4-w4a16`` keeps bf16 activations."""
    dispatch_dtype: PayloadDtype = field(
        default=None,  # type: ignore[arg-type]  # resolved at once, below
        metadata={"default_of": lambda workload: DISPATCH_DTYPE[workload.precision]},
    )
    """What travels on the way out; what comes back is bf16. None means ``DISPATCH_DTYPE`` of the precision."""
    routing: RoutingKind | SkewedRouting = "model"
    """``model``: random logits through the model's own router; ``uniform``: K distinct experts, all equally likely;
    else some are likelier, and ranks differ."""
    attention: Attention | None = None
    """None: the layers are MoE layers alone."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dispatch_dtype is None:
            object.__setattr__(self, "dispatch_dtype", DISPATCH_DTYPE[self.precision])
        if self.attention is not None and self.attention.shape is None:
            shape = ATTENTION_SHAPES.get(self.model.name)
            object.__setattr__(self, "attention", replace(self.attention, shape=shape))

    @property
    def local_experts(self) -> int:
        """L = E / R."""
        return self.model.num_experts // self.ep_size

    @property
    def quantizes(self) -> bool:
        """Whether the experts read activations of fewer bits than bf16: stage ``quantize`` makes them."""
        return self.precision in ("fp8", "nvfp4")

    def payload_dtype(self, direction: Direction) -> PayloadDtype:
        """What travels in this direction."""
        return self.dispatch_dtype if direction == "dispatch" else "bf16"

    def payload_row_bytes(self, direction: Direction) -> int:
        """Bytes of one row that travels in this direction, its scales included."""
        return row_bytes(self.payload_dtype(direction), self.model.hidden_size)


@dataclass(frozen=True)
class LinkTime:
    """seconds = alpha_s + bytes / bandwidth_bytes_per_s, for one direction and payload dtype."""

    direction: Direction
    alpha_s: float
    bandwidth_bytes_per_s: float
    dtype: PayloadDtype | None = None
    """None fills every dtype that has no time of its own: small payloads get fewer bytes per SM than large ones."""

    def seconds(self, num_bytes: int) -> float:
        """Time for one transfer of ``num_bytes``."""
        return self.alpha_s + num_bytes / self.bandwidth_bytes_per_s


@dataclass(frozen=True)
class Link:
    """How rows travel between ranks.

    ``local`` copies rows and models nothing. ``paced`` copies them through HBM on ``comm_sms`` CTAs and holds those
    until a modelled link would have delivered them. ``host_link`` sends them out to pinned host memory and back on the
    GPU's copy engines, and measures. ``collective`` moves them between processes, one a rank, by all-to-all, and
    measures.
    """

    transport: Transport
    comm_sms: int = 0
    """CTAs the transport occupies; 0 for ``local``, whose copy takes what the GPU gives, for ``host_link``, and for
    ``collective``, whose library decides."""
    times: tuple[LinkTime, ...] = ()
    """At least one per direction for ``paced``, else empty."""
    copies: Copies = "rank"
    """What the bandwidth counts: (token, rank) rows or, once per node of ``NODE_RANKS``, (token, node) rows."""
    name: str = field(default="inline", compare=False, metadata=FOR_PEOPLE)
    source: str = field(default="given inline", compare=False, metadata=FOR_PEOPLE)
    gpu: str | None = field(default=None, compare=False, metadata=FOR_PEOPLE)
    """The GPU on which a preset's bandwidth was published; on any other the link is hypothetical."""
    note: str | None = field(default=None, compare=False, metadata=FOR_PEOPLE)
    """What every number over this link must say of it; how well its times were fitted."""

    def seconds(self, direction: Direction, num_bytes: int, dtype: PayloadDtype = "bf16") -> float:
        """Modelled time of one transfer of rows, ``num_bytes`` of the copies it counts; 0 without a model.

        Raises:
            ValueError: a ``paced`` link without a time for this direction.
        """
        if self.transport != "paced":
            return 0.0
        return self.time(direction, dtype).seconds(num_bytes)

    def time(self, direction: Direction, dtype: PayloadDtype = "bf16") -> LinkTime:
        """The model of one direction: the dtype's own, else the one that fills all dtypes.

        Raises:
            ValueError: the link has none.
        """
        for wanted in (dtype, None):
            for time in self.times:
                if time.direction == direction and time.dtype == wanted:
                    return time
        raise ValueError(f"link {self.name!r} has no time for {direction} of {dtype} rows")


@dataclass(frozen=True)
class SplitPolicy:
    """Where a batch is cut into contiguous micro-batches, and from how many tokens on it is cut at all.

    Raises:
        ValueError: a ratio outside 0..1, or one without policy ``ratio``; a negative ``min_tokens``.
    """

    policy: SplitName = "equal"
    """``equal``: token counts that differ by one at most; ``balanced``: cut where the (token, rank) rows, which is
    communication and expert work, come nearest to equal shares; ``ratio``: by ``ratio``."""
    ratio: float = 0.5
    """Share of the first of two micro-batches."""
    min_tokens: int = 0
    """With fewer tokens TBO turns itself off: the batch runs unsplit and serial."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio must lie between 0 and 1, got {self.ratio:g}")
        if self.policy != "ratio" and self.ratio != 0.5:
            raise ValueError(f"ratio goes with policy ratio, not with {self.policy}")
        if self.min_tokens < 0:
            raise ValueError(f"min_tokens must not be negative, got {self.min_tokens}")

    def __str__(self) -> str:
        """``balanced``, ``ratio-0.48-min512``: without space or comma, for labels and ``--filter``."""
        ratio = f"-{self.ratio}" if self.policy == "ratio" else ""
        return f"{self.policy}{ratio}" + (f"-min{self.min_tokens}" if self.min_tokens else "")


EQUAL = SplitPolicy()


@dataclass(frozen=True)
class Variant:
    """One way to run a workload that leaves its answer alone."""

    experts: ExpertsName
    """Backend of the expert GEMMs. No default here: it depends on the precision (:func:`default_experts`)."""
    engine: Engine = "streams"
    split_factor: int = 2
    split: SplitPolicy = EQUAL
    receive: Receive = "worst_case"
    """``worst_case``: no host wait, buffers for the most that can come; ``exact``: the host waits for the counts."""
    launch: Launch = "eager"
    """``eager``: the host issues each op; ``graph``: it replays what was captured once (:mod:`moe_impl.captured_run`).
    T1 and T2s are launched alike."""
    order: Order = field(
        default=None,  # type: ignore[arg-type]  # resolved at once, below
        metadata={"default_of": lambda variant: DEFAULT_ORDER[variant.receive]},
    )
    """Where a micro-batch hands over to the next, by name (``overlap.schedule.segments``). None means
    ``DEFAULT_ORDER`` of ``receive``."""
    comm_priority: CommPriority = "high"
    """Of the communication lane's stream: ``high`` as DeepEP's, or ``default`` as the compute lane's, which is the
    lowest that CUDA knows."""
    reserve_sms: int = 0
    """SMs that the GEMMs leave free for communication, in T2s as in T2o (:mod:`moe_impl.carve_out`)."""
    max_tokens_per_rank: int | None = None
    """Tokens of a rank's whole batch for which ``worst_case`` buffers have room (a server's largest batch); None: this
    batch's. A split divides it, as FastDeploy's ``token_split_factor`` does."""
    worst_case_layout: WorstCaseLayout = "packed"
    """``packed``: experts' pairs follow one another; ``per_expert``: each expert has room for all rows (FastDeploy)."""

    def __post_init__(self) -> None:
        if self.order is None:
            object.__setattr__(self, "order", DEFAULT_ORDER[self.receive])

    def unsplit(self) -> "Variant":
        """T1: the whole batch on one stream, on all SMs."""
        return replace(self.split_serial(), split_factor=1, split=EQUAL, reserve_sms=0)

    def split_serial(self) -> "Variant":
        """T2s: the same micro-batches on one stream and as many SMs, in the default order."""
        return replace(self, engine="serial", order=DEFAULT_ORDER[self.receive], comm_priority="high")

    def normalized(self) -> "Variant":
        """``split_factor: 1`` or ``engine: serial`` only name T1 or T2s: drop the fields that then mean nothing."""
        this = self
        if self.receive == "exact":  # its buffers are as large as what came
            this = replace(self, max_tokens_per_rank=None, worst_case_layout="packed")
        if this.split_factor == 1:
            return this.unsplit()
        return this.split_serial() if this.engine == "serial" else this

    @property
    def role(self) -> Role:
        """T1 unsplit, T2s split but serial, T2o split and overlapped."""
        if self.split_factor == 1:
            return "T1"
        return "T2s" if self.engine == "serial" else "T2o"

    @property
    def label(self) -> str:
        """A short name for tables and plots, such as ``streams x2 triton``; T1 is ``off``."""
        receive = "" if self.receive == "worst_case" else f" {self.receive}"
        receive += "" if self.max_tokens_per_rank is None else f" max-{self.max_tokens_per_rank}"
        receive += "" if self.worst_case_layout == "packed" else f" {self.worst_case_layout}"
        receive += "" if self.launch == "eager" else f" {self.launch}"
        if self.role == "T1":
            return f"off {self.experts}{receive}"
        order = "" if self.order == DEFAULT_ORDER[self.receive] else f" {self.order}"
        split = "" if self.split == EQUAL else f" {self.split}"
        priority = "" if self.comm_priority == "high" else f" {self.comm_priority}-priority"
        reserve = f" reserve-{self.reserve_sms}" if self.reserve_sms else ""
        return f"{self.engine} x{self.split_factor}{split} {self.experts}{receive}{order}{priority}{reserve}"


OWN_WEIGHTS: dict[Precision, tuple[BackendName, ...]] = {
    "bf16": ("torch",),
    "fp8": ("torch",),
    "nvfp4-w4a16": ("triton", "humming"),
    "nvfp4": ("triton",),
}
"""Backends that keep the weights as the precision stores them, the usual one first: what ``auto`` chooses from."""


def default_experts(precision: Precision) -> BackendName:
    """The backend a sweep uses where it names none: the usual one that reads the precision's own weights."""
    return OWN_WEIGHTS[precision][0]


@dataclass(frozen=True)
class Machine:
    """What the support table needs to know of a machine."""

    device: Literal["cuda", "cpu"]
    name: str
    """``NVIDIA H100 80GB HBM3``, or the processor's name."""
    memory_bytes: int
    """Device memory (cuda) or main memory (cpu)."""
    sm_count: int = 0
    capability: tuple[int, int] | None = None
    """CUDA compute capability, (9, 0) for Hopper."""
    torch_version: str = ""
    triton_version: str | None = None
    humming_version: str | None = None
    """Of the package humming-kernels."""
    ranks: int = 1
    """Processes of one group, one a rank; on ``cuda`` each has a GPU of its own, all like this one."""
