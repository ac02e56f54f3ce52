"""The oracle's parts on a GPU: the same bytes and choices as on a CPU."""

import pytest
import torch
from no_wait import no_wait

from moe_impl.nvfp4 import NvFp4Tensor, decode_bf16, dequantize, quantize, tensor_scale
from moe_impl.reference import combine_by_rank, expert_outputs
from moe_impl.routing import select_experts
from moe_impl.shapes import PRESETS, Router

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


@pytest.mark.parametrize("rule", ["modelopt", "kernel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nvfp4_bytes_are_the_cpus(dtype: torch.dtype, rule: str) -> None:
    x = torch.randn(512, 1024)
    x[::7] *= 1e-3
    x[3], x[5, 40] = 0.0, -0.0
    x = x.to(dtype)
    scale = tensor_scale(x)
    assert torch.equal(tensor_scale(x.cuda()).cpu(), scale)
    packed, scales = quantize(x, scale, rule)
    for given_scale in (scale, scale.cuda()):  # a scale on the host must not turn a division into a multiplication
        packed_gpu, scales_gpu = quantize(x.cuda(), given_scale, rule)
        assert torch.equal(packed_gpu.cpu(), packed)
        assert torch.equal(scales_gpu.cpu().view(torch.uint8), scales.view(torch.uint8))
    decoded = dequantize(packed, scales, scale)
    assert torch.equal(dequantize(packed.cuda(), scales.cuda(), scale.cuda()).cpu(), decoded)
    assert torch.equal(decode_bf16(packed.cuda(), scales.cuda()).cpu(), decode_bf16(packed, scales))


def test_routing_chooses_as_on_a_cpu_and_never_waits_for_the_device() -> None:
    router = PRESETS["deepseek-v3"].router
    logits, bias = torch.randn(4096, 256), 0.01 * torch.randn(256)
    ids, weights = select_experts(logits, router, 8, bias)
    logits_gpu, bias_gpu = logits.cuda(), bias.cuda()
    with no_wait():
        ids_gpu, weights_gpu = select_experts(logits_gpu, router, 8, bias_gpu)
    assert torch.equal(ids_gpu.cpu(), ids)
    torch.testing.assert_close(weights_gpu.cpu(), weights, rtol=1e-6, atol=0)
    for part in (slice(0, 1366), slice(1366, 4096), slice(5, 6)):
        part_ids, part_weights = select_experts(logits_gpu[part], router, 8, bias_gpu)
        assert torch.equal(part_ids, ids_gpu[part])
        assert torch.equal(part_weights, weights_gpu[part])


def test_expert_outputs_and_their_combination_are_the_cpus() -> None:
    x = torch.randn(64, 256).bfloat16()
    w13 = NvFp4Tensor.from_dense(torch.randn(4, 256, 256).bfloat16() / 16)
    w2 = NvFp4Tensor.from_dense(torch.randn(4, 256, 128).bfloat16() / 11)
    ids, weights = select_experts(torch.randn(64, 16), Router(), 4)
    w13_gpu, w2_gpu = (NvFp4Tensor(w.packed.cuda(), w.scales.cuda(), w.global_scale.cuda()) for w in (w13, w2))
    outputs = expert_outputs(x, ids, w13, w2)
    outputs_gpu = expert_outputs(x.cuda(), ids.cuda(), w13_gpu, w2_gpu)
    # 1e-6: fp32 sums in another order; TF32 would be off by 1e-3
    assert float((outputs_gpu.cpu() - outputs).norm() / outputs.norm()) < 1e-6
    y_gpu = combine_by_rank(outputs.cuda(), ids.cuda(), weights.cuda(), 16, 4)
    assert torch.equal(y_gpu.cpu(), combine_by_rank(outputs, ids, weights, 16, 4))
