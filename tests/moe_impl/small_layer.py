"""A workload that a CPU runs in milliseconds, and its variants ready to run."""

from collections.abc import Callable
from typing import Any

import torch

from bench import correctness
from bench.oracle import Oracle
from moe_impl.attention import AttentionStandIn, draw_attention
from moe_impl.experts.base import ExpertsBackend, ReadyExperts, backend
from moe_impl.inputs import Inputs, draw_inputs
from moe_impl.layer import MoeStages
from moe_impl.options import Link, LinkTime, Precision, Receive, Variant, Workload, WorstCaseLayout
from moe_impl.shapes import ModelShape, Router
from moe_impl.transport.base import Transport, transport
from moe_impl.variant_run import LayerTrace, VariantRun
from moe_impl.weights import draw_layer

CPU = torch.device("cpu")
ROUTER = Router("sigmoid", selection_bias=True, num_groups=4, top_groups=2, scaling_factor=2.5)
LOCAL = Link("local")
PACED = Link("paced", 4, (LinkTime("dispatch", 1e-4, 1e9), LinkTime("combine", 1e-4, 1e9)))


def workload(
    precision: Precision = "bf16", tokens: int = 21, router: Router = ROUTER, shared_experts: int = 0
) -> Workload:
    """H 64, I 64, 8 experts on 4 ranks, 3 a token, two layers."""
    model = ModelShape(64, 64, 8, 3, router, shared_experts)
    return Workload(model, ep_size=4, layers=2, tokens=tokens, precision=precision)


class Built:
    """One workload's stages; ``run`` makes a variant's callable, ``errors`` asks the oracle."""

    def __init__(
        self,
        work: Workload,
        link: Link = LOCAL,
        experts: ExpertsBackend | None = None,
        over: Transport | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        self.work = work
        self.inputs = draw_inputs(work, CPU) if inputs is None else inputs
        self.weights = [draw_layer(work, layer, CPU) for layer in range(work.layers)]
        experts = experts or backend("torch", work.precision, 1.5)
        self.experts = experts
        self.ready = ReadyExperts(experts, [experts.prepare(weights) for weights in self.weights])
        self.shared = None
        if work.model.shared_experts:
            self.shared = ReadyExperts(experts, [experts.prepare(weights.shared) for weights in self.weights])
        self.attention = None
        if work.attention is not None:
            layers = [draw_attention(work, layer, CPU) for layer in range(work.layers)]
            self.attention = AttentionStandIn(work.attention, layers)
        self.transport = over or transport(link, work, CPU)
        self.stages = self.stages_for("worst_case")

    def stages_for(self, receive: Receive, layout: WorstCaseLayout = "packed") -> MoeStages:
        shared, attention = self.shared, self.attention
        return MoeStages(self.work, self.inputs, self.ready, self.transport, receive, shared, layout, attention)

    def run(self, variant: Variant, progress: Callable[[int], Any] = lambda position: None) -> VariantRun:
        asked = (variant.receive, variant.worst_case_layout)
        stages = self.stages if asked == ("worst_case", "packed") else self.stages_for(*asked)
        return VariantRun(variant, stages, self.inputs.x_TH, progress)

    def errors(self, traces: list[LayerTrace]) -> list[correctness.Errors]:
        """Of each layer against the oracle, which gets the run's own input."""
        oracle = Oracle(self.work, self.inputs, self.weights)
        return [
            correctness.errors(trace.y_TH, oracle.output(layer, trace.x_TH), self.work.precision)
            for layer, trace in enumerate(traces)
        ]
