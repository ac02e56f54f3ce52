"""The bodies of an MoE layer's stages. It only makes them: order and lanes are the schedule's and the driver's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moe_impl import rows as plain
from moe_impl.attention import AttentionStandIn
from moe_impl.experts.base import ReadyExperts
from moe_impl.inputs import Inputs
from moe_impl.options import Receive, Workload, WorstCaseLayout
from moe_impl.overlap.driver import StageBody
from moe_impl.payload import stored_row_bytes
from moe_impl.routing import select_experts
from moe_impl.shapes import Router
from moe_impl.shared import SharedExperts
from moe_impl.stages import Stage
from moe_impl.state import UbatchState
from moe_impl.transport.base import Transport


@dataclass(frozen=True)
class RowOps:
    """How tokens are routed, and rows sorted, reduced, merged and added, on a device."""

    route_tokens: Any
    sort_pairs: Any
    reduce_rows: Any
    merge_rows: Any
    add_normalized: Any


def route_plain(
    logits_TE: Tensor,
    router: Router,
    top_k: int,
    bias_E: Tensor | None,
    num_experts: int,
    ep_size: int,
    capacity: int | None = None,
    peers: plain.PeerChoices | None = None,
) -> plain.SentRows:
    """Stage ``route`` in plain torch: what a CPU runs, and what a host asks on any device before it times."""
    chosen = select_experts(logits_TE, router, top_k, bias_E)  # also where peers have chosen: it is the router's work
    if peers is not None:
        return plain.plan_peer_rows(peers, capacity)
    return plain.plan_rows(*chosen, num_experts, ep_size, capacity)


def row_ops(device: torch.device) -> RowOps:
    """Triton kernels that read counts on the device for CUDA, plain torch for a CPU."""
    if device.type != "cuda":
        return RowOps(route_plain, plain.plan_pairs, plain.reduce_rows, plain.merge_rows, plain.add_normalized)
    from moe_impl.kernels.add_normalized import add_normalized
    from moe_impl.kernels.merge_rows import merge_rows
    from moe_impl.kernels.reduce_rows import reduce_rows
    from moe_impl.kernels.route_tokens import route_tokens
    from moe_impl.kernels.sort_pairs import sort_pairs

    return RowOps(route_tokens, sort_pairs, reduce_rows, merge_rows, add_normalized)


def payload_rows(workload: Workload, rows: int, device: torch.device) -> Tensor:
    """Room for rows as they travel on the way out: bf16 [rows, H], or uint8 [rows, stored_row_bytes]."""
    width = workload.model.hidden_size
    if workload.dispatch_dtype == "bf16":
        return torch.empty(rows, width, dtype=torch.bfloat16, device=device)
    return torch.empty(rows, stored_row_bytes(workload.dispatch_dtype, width), dtype=torch.uint8, device=device)


class MoeStages:
    """Stage bodies for one workload, backend and transport; ``bodies`` is what a driver runs."""

    def __init__(
        self,
        workload: Workload,
        inputs: Inputs,
        experts: ReadyExperts,
        transport: Transport,
        receive: Receive = "worst_case",
        shared: ReadyExperts | None = None,
        layout: WorstCaseLayout = "packed",
        attention: AttentionStandIn | None = None,
    ) -> None:
        self.workload = workload
        self._layout = layout
        self._inputs = inputs
        self._experts = experts.backend
        self._prepared = experts.prepared
        self._shared_experts = None if shared is None else SharedExperts(shared, workload.quantizes)
        self._attention = attention
        self._transport = transport
        device = inputs.x_TH.device
        self._row_ops = row_ops(device)
        self._sizes = transport.receive_sizes(device) if receive == "exact" else None
        self._compute = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self.bodies: dict[Stage, StageBody] = {
            Stage.ATTENTION: self._attend,
            Stage.ROUTE: self._route,
            Stage.QUANTIZE: self._quantize_sent if workload.dispatch_dtype != "bf16" else self._quantize_received,
            Stage.DISPATCH: self._dispatch,
            Stage.SHARED: self._shared,
            Stage.PERMUTE: self._permute,
            Stage.GEMM1: self._gemm1,
            Stage.SILU_MUL: self._silu_mul,
            Stage.GEMM2: self._gemm2,
            Stage.REDUCE: self._reduce,
            Stage.COMBINE: self._combine,
            Stage.MERGE: self._merge,
        }

    def start(
        self, slices: list[slice], room: int | None = None, learned: list[list[plain.Learned]] | None = None
    ) -> list[UbatchState]:
        """Fresh states over the rank's batch, one a micro-batch.

        Args:
            room: tokens of a rank for which each micro-batch's buffers have room; None: its own.
            learned: of each micro-batch, by layer (:meth:`learn_rows`).
        """
        capacity = self._capacity(room)
        by_ubatch: Sequence[list[plain.Learned] | None] = learned or [None] * len(slices)
        return [
            UbatchState(tokens, self._inputs.x_TH[tokens], capacity, layers)
            for tokens, layers in zip(slices, by_ubatch, strict=True)
        ]

    def _capacity(self, room: int | None) -> int | None:
        return None if room is None else self.workload.ep_size * room

    def learn_rows(self, slices: list[slice], room: int | None = None) -> list[list[plain.Learned]] | None:
        """Before anything is timed: route each micro-batch and learn what the host must know of its rows.

        Only for a transport whose copies the host sizes, and where no receive will tell it; else None.
        """
        if not self._transport.host_sized or self._sizes is not None:
            return None
        layers, capacity = range(self.workload.layers), self._capacity(room)
        return [[self._transport.learn(self._routed(tokens, layer, capacity)) for layer in layers] for tokens in slices]

    def _routed(self, tokens: slice, layer: int, capacity: int | None = None) -> plain.SentRows:
        workload = self.workload
        rows: plain.SentRows = self._row_ops.route_tokens(
            self._inputs.logits_LTE[layer][tokens],
            self._inputs.router,
            workload.model.top_k,
            self._inputs.bias_E,
            workload.model.num_experts,
            workload.ep_size,
            capacity,
            self._inputs.peers_of(layer, tokens),
        )
        return rows

    def rows_per_token(self) -> list[int]:
        """Rows each token of the batch sends, or brings here with skewed routing, summed over layers, under the true
        routing. Waits for the device."""
        whole = slice(0, self._inputs.x_TH.shape[0])
        sent_LT = [(self._routed(whole, layer).row_TR >= 0).sum(1) for layer in range(self.workload.layers)]
        return [int(rows) for rows in torch.stack(sent_LT).sum(0).tolist()]

    def _row_buffer(self, capacity: int) -> Tensor:
        x_TH = self._inputs.x_TH
        return x_TH.new_empty(capacity, x_TH.shape[1])

    def _receive_buffer(self, capacity: int) -> Tensor:
        return payload_rows(self.workload, capacity, self._inputs.x_TH.device)

    def _attend(self, state: UbatchState, layer: int) -> None:
        a_TH = self._attention.run(state.x_TH, state.tokens, layer)
        state.x_TH = self._row_ops.add_normalized(state.x_TH, a_TH)

    def _route(self, state: UbatchState, layer: int) -> None:
        state.rows = self._routed(state.tokens, layer, state.capacity)
        if state.learned is not None:
            state.rows = state.rows.knowing(state.learned[layer])
        if self._sizes is None:
            self._make_room(state)
        state.payload_TB = state.x_TH

    def _make_room(self, state: UbatchState) -> None:
        state.rows = self._transport.ready(state.rows)
        state.received_MB = self._receive_buffer(state.rows.received.capacity)

    def _quantize_sent(self, state: UbatchState, layer: int) -> None:
        state.payload_TB = self._experts.quantize(self._prepared[layer], state.x_TH)

    def _quantize_received(self, state: UbatchState, layer: int) -> None:
        prepared, count = self._prepared[layer], state.received_rows.num_rows
        state.received_MB = self._experts.quantize(prepared, state.received_MB, count)

    def _shared(self, state: UbatchState, layer: int) -> None:
        state.shared_TH = self._shared_experts.run(state.x_TH, layer)

    def _dispatch(self, state: UbatchState, layer: int) -> None:
        if self._sizes is not None:
            state.rows = self._sizes.wait(state.rows)
            self._make_room(state)
            if self._compute is not None:
                # Allocated on the communication lane, read on the compute lane: see moe_impl/state.py.
                for tensor in (state.received_MB, *state.rows.inbox_tensors()):
                    tensor.record_stream(self._compute)
        self._transport.dispatch(state.payload_TB, state.rows, state.received_MB)
        state.received_rows = state.rows.received

    def _permute(self, state: UbatchState, layer: int) -> None:
        state.pairs = self._row_ops.sort_pairs(state.received_rows, self.workload.local_experts, self._layout)
        self._experts.permute(self._prepared[layer], state)
        state.payload_TB = None

    def _gemm1(self, state: UbatchState, layer: int) -> None:
        self._experts.gemm1(self._prepared[layer], state)

    def _silu_mul(self, state: UbatchState, layer: int) -> None:
        self._experts.silu_mul(self._prepared[layer], state)

    def _gemm2(self, state: UbatchState, layer: int) -> None:
        self._experts.gemm2(self._prepared[layer], state)

    def _reduce(self, state: UbatchState, layer: int) -> None:
        state.partial_MH = self._row_buffer(state.received_rows.capacity)
        state.returned_MH = self._row_buffer(state.rows.capacity)
        self._row_ops.reduce_rows(state.outputs_PH, state.pairs, state.received_rows, state.partial_MH)
        state.outputs_PH = state.pairs = None

    def _combine(self, state: UbatchState, layer: int) -> None:
        self._transport.combine(state.partial_MH, state.rows, state.returned_MH)

    def _merge(self, state: UbatchState, layer: int) -> None:
        state.y_TH, state.x_TH = self._row_ops.merge_rows(state.x_TH, state.returned_MH, state.rows, state.shared_TH)
        state.partial_MH = state.returned_MH = state.shared_TH = state.rows = state.received_rows = None
