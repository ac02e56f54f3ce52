"""Schedules of the plainest layer: bf16, no shared experts, no attention. And a layer with both."""

from dataclasses import replace

from moe_impl.attention_shapes import GqaShape
from moe_impl.options import Attention, Order, Receive, Workload
from moe_impl.overlap import schedule
from moe_impl.shapes import ModelShape

PLAIN = Workload(ModelShape(64, 64, 8, 3), ep_size=4, layers=2, tokens=8, precision="bf16")
STAGES = schedule.chain(PLAIN)
WHOLE = replace(PLAIN, model=replace(PLAIN.model, shared_experts=1), attention=Attention(16, shape=GqaShape(4, 2, 16)))
"""Every stage that orders place differently."""


def build(layers: int, num_ubatches: int, order: Order, receive: Receive = "worst_case") -> schedule.Schedule:
    return schedule.build(STAGES, layers, num_ubatches, order, receive)
