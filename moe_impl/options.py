"""What can be chosen: Workload, Link and Variant, as frozen dataclasses. Torch-free.

A *Workload* field changes the expected output; a *Link* says how rows travel; a *Variant* is what an operator can
switch without changing the answer. All quantities are SI, the unit in the name. A field whose metadata says
``identity: False`` is for people only and stays out of case and variant ids.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from moe_impl.payload import PayloadDtype, row_bytes
from moe_impl.shapes import ModelShape

Precision = Literal["bf16", "fp8", "nvfp4-w4a16", "nvfp4"]
RoutingKind = Literal["model", "uniform"]
Transport = Literal["local", "paced", "host_link", "collective"]
Direction = Literal["dispatch", "combine"]
Copies = Literal["rank", "node"]
Engine = Literal["serial", "threads", "streams"]
Receive = Literal["worst_case", "exact"]
Launch = Literal["eager"]
ExpertsName = Literal["torch", "triton"]
Order = Literal["yield_before", "yield_after"]
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

DEFAULT_ORDER: dict[Receive, Order] = {"worst_case": "yield_after", "exact": "yield_before"}
"""FastDeploy's PR #7259 hands over after dispatch and combine when ``num_worst_tokens`` > 0, else before them: a
dispatch that waits for its counts blocks the host, and the other batch's compute must be queued by then."""


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
    routing: RoutingKind = "model"
    """``model``: random logits through the model's own router; ``uniform``: K distinct experts, all equally likely."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dispatch_dtype is None:
            object.__setattr__(self, "dispatch_dtype", DISPATCH_DTYPE[self.precision])

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
    GPU's copy engines, and measures.
    """

    transport: Transport
    comm_sms: int = 0
    """CTAs the transport occupies; 0 for ``local``, whose copy takes what the GPU gives, and ``host_link``."""
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
    order: Order = field(
        default=None,  # type: ignore[arg-type]  # resolved at once, below
        metadata={"default_of": lambda variant: DEFAULT_ORDER[variant.receive]},
    )
    """Where a micro-batch hands over to the next: before dispatch and before combine, or after each.
    None means ``DEFAULT_ORDER`` of ``receive``."""
    max_tokens_per_rank: int | None = None
    """Tokens of a rank's whole batch for which ``worst_case`` buffers have room (a server's largest batch); None: this
    batch's. A split divides it, as FastDeploy's ``token_split_factor`` does."""
    worst_case_layout: WorstCaseLayout = "packed"
    """``packed``: experts' pairs follow one another; ``per_expert``: each expert has room for all rows (FastDeploy)."""

    def __post_init__(self) -> None:
        if self.order is None:
            object.__setattr__(self, "order", DEFAULT_ORDER[self.receive])

    def unsplit(self) -> "Variant":
        """T1: the whole batch on one stream."""
        return replace(self.split_serial(), split_factor=1, split=EQUAL)

    def split_serial(self) -> "Variant":
        """T2s: the same micro-batches on one stream, in the default order."""
        return replace(self, engine="serial", order=DEFAULT_ORDER[self.receive])

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
        if self.role == "T1":
            return f"off {self.experts}{receive}"
        order = "" if self.order == DEFAULT_ORDER[self.receive] else f" {self.order}"
        split = "" if self.split == EQUAL else f" {self.split}"
        return f"{self.engine} x{self.split_factor}{split} {self.experts}{receive}{order}"


def default_experts(precision: Precision) -> ExpertsName:
    """The backend a sweep uses where it names none: the one that reads the precision's own weights."""
    return "triton" if precision.startswith("nvfp4") else "torch"


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
