"""The small layer with each stage that a schedule may have or lack: what tests of all schedules go through."""

from dataclasses import replace

from small_layer import workload

from moe_impl.attention_shapes import GqaShape
from moe_impl.options import Attention, Workload

ATTENTION = Attention(16, shape=GqaShape(4, 2, 16))

KINDS: dict[str, Workload] = {
    "plain": workload(),
    "shared": workload(shared_experts=1),
    "quantized": workload("nvfp4"),
    "quantized-late": replace(workload("nvfp4"), dispatch_dtype="bf16"),
    "attention": replace(workload(), attention=ATTENTION),
    "everything": replace(workload("nvfp4", shared_experts=1), attention=ATTENTION),
}
"""Two layers each."""
