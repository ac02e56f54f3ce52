"""The one door to moe_impl's layers: from a Case to callables, checks and memory figures."""

import gc
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.cases import Case
from bench.measure.peers import ALONE, Peers
from bench.oracle import Oracle
from bench.results import Memory, Traffic
from moe_impl import costs, rows
from moe_impl.attention import AttentionLayer, AttentionStandIn, draw_attention
from moe_impl.captured_run import CapturedRun
from moe_impl.device_memory import fill_free_with_nan, reserve
from moe_impl.experts.base import ExpertsBackend, ReadyExperts, backend
from moe_impl.inputs import Inputs, draw_inputs
from moe_impl.layer import MoeStages, payload_rows, route_plain
from moe_impl.options import BackendName, Direction, Link, Variant, Workload
from moe_impl.reference import next_input
from moe_impl.transport.base import Transport, transport
from moe_impl.variant_run import LayerTrace, VariantRun
from moe_impl.weights import LayerWeights, draw_layer

Progress = Callable[[int], None]
Result = TypeVar("Result")
SUSTAIN_SLACK = 0.05
SUSTAIN_SLACK_S = 10e-6
"""A lone transfer may exceed the link's model by this share, and by a kernel's start, before the link counts as
unsustainable."""
SUSTAIN_ATTEMPTS = 40
"""Transfers that may be too slow, all of them, before it does: a GPU at its power limit copies slower for a moment."""


class LinkCannotSustainError(RuntimeError):
    """The copy under a modelled link is slower than the model: its times would mean nothing."""


class Targets:
    """Builds targets in one process, and the weights they share once per precision.

    Attributes:
        rank: this process's in a group of one process a rank; None where it stands for all ranks.
    """

    def __init__(self, device: torch.device, rank: int | None = None) -> None:
        self.device, self.rank = device, rank
        self._key: tuple[Any, ...] | None = None
        self._weights: list[LayerWeights] = []
        self._prepared: dict[tuple[str, bool], list[Any]] = {}
        self._attention_key: tuple[Any, ...] | None = None
        self._attention: list[AttentionLayer] = []

    def build(self, case: Case) -> "Target":
        """Inputs, weights and transport of a case."""
        self._load(case.workload)
        self._load_attention(case.workload)
        listed = {variant.experts for variant in case.variants}
        return Target(
            case.workload,
            case.link,
            self.device,
            self._weights,
            self._ready,
            self._attention,
            self.rank,
            lambda chosen: self._keep(listed | {chosen}),
        )

    def _load(self, workload: Workload) -> None:
        key = (workload.model, workload.ep_size, workload.layers, workload.precision, workload.seed)
        if key == self._key:
            return
        self._weights, self._prepared, self._key = [], {}, None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._weights = [draw_layer(workload, layer, self.device) for layer in range(workload.layers)]
        self._key = key

    def _load_attention(self, workload: Workload) -> None:
        """Weights and KV, which decode has for every token of the case and prefill once."""
        attention = workload.attention
        key = None
        if attention is not None:
            sequences = attention.sequences(workload.tokens)
            key = (attention, sequences, workload.model.hidden_size, workload.layers, workload.seed)
        if key == self._attention_key:
            return
        self._attention, self._attention_key = [], None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if attention is not None:
            self._attention = [draw_attention(workload, layer, self.device) for layer in range(workload.layers)]
        self._attention_key = key

    def _keep(self, names: Collection[str]) -> None:
        """Drop what other backends made of the weights."""
        self._prepared = {key: layers for key, layers in self._prepared.items() if key[0] in names}
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _ready(self, name: str, experts: ExpertsBackend, shared: bool) -> ReadyExperts:
        if (name, shared) not in self._prepared:
            layers = [layer.shared if shared else layer for layer in self._weights]
            self._prepared[name, shared] = [experts.prepare(weights) for weights in layers if weights is not None]
        return ReadyExperts(experts, self._prepared[name, shared])


class Target:
    """One case, ready to run in any of its variants."""

    def __init__(
        self,
        workload: Workload,
        link: Link,
        device: torch.device,
        weights: list[LayerWeights],
        ready: Callable[[str, ExpertsBackend, bool], ReadyExperts],
        attention: list[AttentionLayer],
        rank: int | None,
        keep_weights: Callable[[BackendName], None],
    ) -> None:
        self.workload, self.link, self.device = workload, link, device
        self._weights, self._ready, self._keep_weights = weights, ready, keep_weights
        self._attention = None if workload.attention is None else AttentionStandIn(workload.attention, attention)
        self._inputs: Inputs = draw_inputs(workload, device, rank)
        self._transport: Transport = transport(link, workload, device)
        self._oracle = Oracle(workload, self._inputs, weights)
        self._capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
        self._backends: dict[BackendName, ExpertsBackend] = {}
        self._chosen: BackendName | None = None

    def choose_experts(self, name: BackendName) -> None:
        """What ``experts: auto`` stands for from now on; of others' weights those stay that a variant names."""
        self._chosen = name
        self._keep_weights(name)

    def synchronize(self) -> None:
        """Wait for the device.

        Raises:
            RuntimeError: it is lost, as after an illegal access: nothing runs in this process any more.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _name(self, variant: Variant) -> BackendName:
        if variant.experts != "auto":
            return variant.experts
        assert self._chosen is not None, "experts: auto, before anything was chosen"
        return self._chosen

    def _backend(self, variant: Variant) -> ExpertsBackend:
        name = self._name(variant)
        if name not in self._backends:
            pairs_per_token = self.workload.model.top_k / self.workload.local_experts
            self._backends[name] = backend(name, self.workload.precision, pairs_per_token, self._capability)
        return self._backends[name]

    def _shared(self, variant: Variant) -> ReadyExperts | None:
        if not self.workload.model.shared_experts:
            return None
        name = self._name(variant)
        return self._ready(name, backend(name, self.workload.precision, 1.0, self._capability), True)

    def run(self, variant: Variant, progress: Progress) -> VariantRun:
        """The variant's callable: one iteration over all layers."""
        experts = self._ready(self._name(variant), self._backend(variant), False)
        shared = self._shared(variant)
        layout = variant.worst_case_layout
        stages = MoeStages(
            self.workload,
            self._inputs,
            experts,
            self._transport,
            variant.receive,
            shared,
            layout,
            attention=self._attention,
        )
        kind = CapturedRun if variant.launch == "graph" else VariantRun
        return kind(variant, stages, self._inputs.x_TH, progress)

    def deterministic(self, variant: Variant) -> bool:
        return self._backend(variant).deterministic

    def batch_invariant(self, variant: Variant) -> bool:
        """False with attention: how torch sums a projection depends on how many rows it has."""
        return self.workload.attention is None and self._backend(variant).batch_invariant

    def oracle(self, layer: int, trace: LayerTrace) -> Tensor:
        """What the layer should have made of the input it got."""
        return self._oracle.output(layer, trace.x_TH)

    def attended(self, layer: int, trace: LayerTrace) -> Tensor:
        """What the layer's attention, asked for all tokens at once, makes of the input that the layer got."""
        if self._attention is None:
            return trace.before_TH
        tokens = slice(0, len(trace.before_TH))
        return next_input(trace.before_TH, self._attention.run(trace.before_TH, tokens, layer))

    def next_input(self, trace: LayerTrace) -> Tensor:
        """What the next layer should get, by the reference."""
        return next_input(trace.x_TH, trace.y_TH)

    def poison(self, variant: Variant) -> None:
        """Fill the memory that the next run will allocate with NaN, so that a value read before it is written shows.

        The allocator keeps memory by stream: what the communication lane allocates (receive buffers under ``exact``,
        rows packed for a transfer) is reserved on that lane, as far as a quarter of the free memory goes. Best called
        when the run is built, which would else write into what was filled. A captured run fills its own memory.
        """
        if self.device.type != "cuda" or variant.launch == "graph":
            return
        from moe_impl.overlap.cuda_lanes import comm_stream

        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        size = costs.buffer_bytes(self.workload, variant)
        reserve(size, self.device)
        free, _ = torch.cuda.mem_get_info(self.device)
        here = torch.cuda.current_stream(self.device).device  # by its index, as the lanes know it
        with torch.cuda.stream(comm_stream(here, variant.comm_priority)):
            reserve(min(size, free // 4), self.device)
        fill_free_with_nan(here)
        torch.cuda.synchronize()

    def watching_memory(
        self, call: Callable[[], Result], pool_bytes: int | None = None
    ) -> tuple[Result, Memory | None]:
        """Peak and retained bytes of some iterations, by the device's allocator; None on a CPU, which has none.

        Args:
            pool_bytes: what a captured run keeps reserved for itself: its iterations allocate nothing.
        """
        if self.device.type != "cuda":
            return call(), None
        gc.collect()  # what earlier cases left in cycles must not be freed meanwhile
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() if pool_bytes is None else before + pool_bytes
        return result, Memory(peak, peak - before, torch.cuda.memory_allocated() - before)

    def traffic(self, peers: Peers = ALONE) -> Traffic:
        """Rows received, by rank where ranks differ, and pairs by local expert, under the true routing of the batch.

        Clones send this rank what it sends, or what a skewed routing has them send; real ranks are asked.
        """
        layers, played = self.workload.layers, self._inputs.peers
        here = slice(None) if peers.size == 1 else slice(peers.rank, peers.rank + 1)
        rows_R, by_layer = torch.zeros(self.workload.ep_size, dtype=torch.int64), []
        for layer in range(layers):
            of_ranks = peers.gather(self._sent_to(layer))
            rows_R += sum(sent_R for sent_R, _ in of_ranks)
            by_layer.append(sum(pairs_RL[here].sum(0) for _, pairs_RL in of_ranks))
        pairs = torch.stack(by_layer)
        rank: int | None = None
        rank_rows: tuple[float, ...] = ()
        if played is not None:
            rank, rank_rows = played.rank, played.rank_rows
        elif peers.size > 1:
            rank, rank_rows = peers.rank, tuple((rows_R.double() / layers).tolist())
        return Traffic(
            int(rows_R[here].sum()) / layers,
            int(pairs.max()),
            tuple(pairs.sum(0).tolist()),
            max((over_mean(pairs_L) for pairs_L in pairs.tolist() if any(pairs_L)), default=None),
            rank,
            rank_rows,
            over_mean(rank_rows) if any(rank_rows) else 1.0,
        )

    def _sent_to(self, layer: int) -> tuple[Tensor, Tensor]:
        """Rows by destination [R], and their pairs by destination and its local expert [R, L]; on the CPU.

        Where peers chose for themselves: rows by peer, and their pairs on this rank's experts.
        """
        sent, (R, L) = self._sent_rows(layer), (self.workload.ep_size, self.workload.local_experts)
        rows_R = (sent.row_TR >= 0).sum(0)
        first_M1 = L * torch.arange(R, device=rows_R.device).repeat_interleave(rows_R)[:, None]
        experts_MK = sent.experts_MK[: len(first_M1)]
        pairs = (first_M1 + experts_MK)[experts_MK >= 0].bincount(minlength=R * L)
        return rows_R.cpu(), pairs.view(R, L).cpu()

    def _sent_rows(self, layer: int) -> rows.SentRows:
        inputs, model = self._inputs, self.workload.model
        logits_TE, ep_size = inputs.logits_LTE[layer], self.workload.ep_size
        peers = inputs.peers_of(layer, slice(None))
        return route_plain(
            logits_TE, inputs.router, model.top_k, inputs.bias_E, model.num_experts, ep_size, peers=peers
        )

    def check_link(self, time_s: Callable[[Callable[[], object]], float]) -> None:
        """Send the whole batch's rows alone, both ways. Not on a CPU: nothing is claimed there, a copy holds no SM, and
        a busy processor would fail the case.

        Raises:
            LinkCannotSustainError: the copy takes longer than the link it models.
        """
        if self.link.transport != "paced" or self.device.type == "cpu":
            return
        sent = self._sent_rows(0)
        x_TH = self._inputs.x_TH
        partial = x_TH.new_empty(sent.capacity, x_TH.shape[1])
        returned = torch.empty_like(partial)
        payload = payload_rows(self.workload, len(x_TH), x_TH.device)
        received = payload_rows(self.workload, sent.capacity, x_TH.device)
        sends: dict[Direction, Callable[[], None]] = {
            "dispatch": lambda: self._transport.dispatch(payload, sent, received),
            "combine": lambda: self._transport.combine(partial, sent, returned),
        }
        for direction, send in sends.items():
            num_bytes = int(sent.counted(self.link.copies)) * self.workload.payload_row_bytes(direction)
            modelled_s = self.link.seconds(direction, num_bytes, self.workload.payload_dtype(direction))
            allowed_s = modelled_s * (1 + SUSTAIN_SLACK) + SUSTAIN_SLACK_S
            taken_s = math.inf
            for _ in range(SUSTAIN_ATTEMPTS):
                taken_s = min(taken_s, time_s(send))
                if taken_s <= allowed_s:
                    break
            else:
                raise LinkCannotSustainError(
                    f"link cannot sustain the model: {direction} of {num_bytes} bytes takes {taken_s * 1e6:.0f} us, "
                    f"modelled {modelled_s * 1e6:.0f} us; give it more comm_sms or less bandwidth"
                )


def over_mean(values: Sequence[float]) -> float:
    """The largest of them over their mean."""
    return max(values) * len(values) / sum(values)
