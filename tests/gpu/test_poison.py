"""What a check's run allocates on either lane holds NaN before it is written."""

import pytest
import torch
from small_target import ignore, small_target

from moe_impl.links import LOCAL
from moe_impl.options import Variant
from moe_impl.overlap.cuda_lanes import comm_stream

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("size", [1 << 12, 1 << 21, 12 << 20])
def test_what_either_lane_allocates_next_is_nan(size: int) -> None:
    """Small pieces too, which the allocator cuts from blocks that live tensors share."""
    target = small_target("bf16", LOCAL, tokens=512)
    variant = Variant("torch", receive="exact")
    target.run(variant, ignore)
    target.poison(variant)
    device = torch.device("cuda", torch.cuda.current_device())
    for stream in (torch.cuda.current_stream(device), comm_stream(device, variant.comm_priority)):
        with torch.cuda.stream(stream):
            found = torch.empty(size // 2, dtype=torch.bfloat16, device=device)
            assert bool(found.isnan().all()), stream
