"""What stays on the GPU after a step, and after many; a planted dict that pins tensors is found and named."""

import pytest
import torch
from small_target import ignore, small_target

from bench.measure.retention import retained_sites
from moe_impl.links import LOCAL
from moe_impl.options import Variant
from moe_impl.stages import Stage
from moe_impl.state import UbatchState

pytestmark = pytest.mark.gpu


def test_bytes_retained_after_a_thousand_steps_equal_those_after_ten() -> None:
    target = small_target("nvfp4-w4a16", LOCAL, tokens=128)
    for variant in (Variant("triton"), Variant("triton", receive="exact")):
        run = target.run(variant, ignore)
        allocated = {}
        for steps in range(1, 1001):
            run()
            if steps in (10, 1000):
                torch.cuda.synchronize()
                allocated[steps] = (torch.cuda.memory_allocated(), torch.cuda.memory_reserved())
        assert allocated[1000] == allocated[10], variant.label


def test_a_dict_that_pins_tensors_like_fastdeploys_global_values_is_caught_by_site() -> None:
    target = small_target("bf16", LOCAL, tokens=512)
    run = target.run(Variant("torch"), ignore)
    run()
    assert sum(retained_sites(run).values()) == 0
    global_values: dict[int, dict[str, torch.Tensor]] = {}
    bodies = run._stages.bodies
    permute = bodies[Stage.PERMUTE]

    def pinning(state: UbatchState, layer: int) -> None:
        assert state.received_MB is not None
        global_values.setdefault(state.tokens.start, {})["recv_x"] = state.received_MB
        permute(state, layer)

    bodies[Stage.PERMUTE] = pinning
    sites = retained_sites(run)
    rows_bytes = 2 * 8 * 256 * 2048 * 2  # two micro-batches, R x T rows of H bf16
    assert sum(sites.values()) == rows_bytes
    assert [where.split()[1] for where in sites] == ["payload_rows"]
