"""FP8 on a GPU: its kernels give plain torch's bits on real shapes, torch's grouped matmul does what the backend relies
on, and whole layers agree with the oracle. What ``support`` refuses elsewhere is skipped but on Hopper."""

from dataclasses import replace

import pytest
import torch
from no_wait import no_wait
from small_target import SLOW, ignore
from torch import Tensor

from bench.cases import Case
from bench.correctness import TOLERANCE, errors
from bench.targets import Target, Targets
from moe_impl import fp8
from moe_impl.experts import fp8_rows
from moe_impl.experts.fp8_backend import scaled_grouped_mm
from moe_impl.links import LOCAL
from moe_impl.options import Link, Variant, Workload
from moe_impl.payload import PayloadDtype
from moe_impl.rows import Pairs
from moe_impl.shapes import ModelShape, Router
from moe_impl.support import FP8_CAPABILITY

pytestmark = [pytest.mark.gpu]
HOPPER = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != FP8_CAPABILITY, reason="needs a Hopper GPU"
)

ROUTER = Router("sigmoid", True, 8, 4, True, 2.5)
MODEL = ModelShape(2048, 1024, 64, 8, ROUTER, shared_experts=1)
DEEPSEEK = ModelShape(7168, 2048, 32, 8, ROUTER, shared_experts=1)
H, I, BYTES = 7168, 2048, 7172
T2O = Variant("torch")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda")


def raw(codes: Tensor) -> Tensor:
    return codes.view(torch.uint8)


def hard_rows(rows: int) -> Tensor:
    """bf16 rows with zeros of both signs, subnormal numbers, the largest ones, and mixed sizes."""
    x = normal(rows, H)
    x[1], x[2] = 0.0, -0.0
    x[3] *= 1e-38
    x[4] = 1e38 * x[4].clamp(-3, 3)
    x[5] *= torch.exp2(torch.arange(H, device="cuda") % 80 - 40.0)
    x[6] = 2.0**-133
    x[7] = torch.arange(H, device="cuda") / 16
    return x.bfloat16()


def test_rows_are_quantized_to_the_bits_of_plain_torch() -> None:
    from moe_impl.kernels.quantize_fp8 import quantize_fp8

    x = hard_rows(1003)
    plain = fp8_rows.quantize_rows(x.cpu())[:, :BYTES].cuda()
    assert plain.shape[1] == H + 4
    assert torch.equal(quantize_fp8(x)[:, :BYTES], plain)
    count = torch.tensor([900], dtype=torch.int32, device="cuda")
    assert torch.equal(quantize_fp8(x, count)[:900, :BYTES], plain[:900])
    codes, scales = fp8.quantize_rows(x)  # what the oracle makes of them on this device
    assert torch.equal(raw(codes), plain[:, :H])
    assert torch.equal(scales, plain[:, H:].contiguous().view(torch.float32)[:, 0])


def test_pairs_are_their_rows() -> None:
    from moe_impl.kernels.gather_fp8 import gather_fp8
    from moe_impl.kernels.quantize_fp8 import quantize_fp8

    x = hard_rows(500)
    payload, (codes, scales) = quantize_fp8(x), fp8.quantize_rows(x)
    row_P = torch.randint(0, 500, (1500,), dtype=torch.int32, device="cuda")
    ends_L = torch.tensor([400, 400, 1300], dtype=torch.int32, device="cuda")
    found, scale_P = gather_fp8(payload, Pairs(ends_L, row_P, None), H)
    used = row_P[:1300].long()
    assert torch.equal(raw(found)[:1300], raw(codes)[used])
    assert torch.equal(scale_P[:1300], scales[used])
    alone, scale_N = gather_fp8(payload, Pairs(torch.full_like(ends_L[:1], 500), None, None), H)
    assert torch.equal(raw(alone), raw(codes))
    assert torch.equal(scale_N, scales)


@pytest.mark.parametrize("width", [I, 2 * I, 14336])
def test_h_is_quantized_as_plain_torch_quantizes_it(width: int) -> None:
    from moe_impl.kernels.silu_mul_fp8 import silu_mul_fp8

    gate_up = 2 * normal(700, 2 * width).bfloat16()
    gate_up[640:] = torch.nan
    ends = torch.tensor([0, 300, 300, 640], dtype=torch.int32, device="cuda")
    found, scale_P = (part[:640].cpu() for part in silu_mul_fp8(gate_up, ends))
    plain, plain_scale_P = (part[:640] for part in fp8_rows.silu_mul(gate_up.cpu(), ends.cpu()))
    # The device's exp and division differ from the host's in the last bits: few values lie that close to a tie.
    torch.testing.assert_close(scale_P, plain_scale_P, rtol=1e-5, atol=0)
    assert (raw(found) != raw(plain)).float().mean() < 1e-3


@HOPPER
@pytest.mark.parametrize("pairs", [40, 700, 9000])
@pytest.mark.parametrize(("N", "K"), [(2 * I, H), (H, I), (48, 80)])
def test_the_grouped_matmul_takes_skewed_and_empty_groups_and_leaves_the_rest_alone(pairs: int, N: int, K: int) -> None:
    """Each of its tiles (they depend on P' / L), with garbage behind the last end.

    Fast accumulation drops bits at each of its K / 32 additions.
    """
    L = 8
    weights = fp8.Fp8Tensor.from_dense(normal(L, N, K, seed=1).bfloat16() / K**0.5)
    codes, scale_P = fp8.quantize_rows(normal(pairs, K))
    used = pairs * 9 // 10
    raw(codes)[used:] = 0x7F
    scale_P[used:] = torch.nan
    for ends in ([0, 1, 1, used - 3, used - 3, used - 2, used, used], [used] * L, [0] * (L - 1) + [used], [0] * L):
        ends_L = torch.tensor(ends, dtype=torch.int32, device="cuda")
        found = scaled_grouped_mm(codes, scale_P, weights, ends_L)
        assert (found.shape, found.dtype) == ((pairs, N), torch.bfloat16)
        start = 0
        for expert, end in enumerate(ends):
            if end > start:
                exact = codes[start:end].double() @ weights.codes[expert].double().t()
                exact *= scale_P[start:end, None].double() * weights.scales[expert].double()
                assert (found[start:end].double() - exact).norm() / exact.norm() < 4e-3 + 2e-6 * K
            start = end
        again = scaled_grouped_mm(codes, scale_P, weights, ends_L)
        assert torch.equal(found[: ends[-1]], again[: ends[-1]])
    assert scaled_grouped_mm(codes[:0], scale_P[:0], weights, ends_L).shape == (0, N)


def _target(
    model: ModelShape, dispatch: PayloadDtype = "fp8", link: Link = LOCAL, tokens: int = 515, ep_size: int = 8
) -> Target:
    workload = Workload(model, ep_size, layers=2, tokens=tokens, precision="fp8", dispatch_dtype=dispatch)
    return Targets(torch.device("cuda")).build(Case(workload, link, ()))


@HOPPER
@pytest.mark.parametrize("link", [LOCAL, SLOW], ids=lambda link: link.name)
@pytest.mark.parametrize("dispatch", ["fp8", "bf16"])
def test_every_variant_agrees_with_the_oracle_and_with_the_serial_run(dispatch: PayloadDtype, link: Link) -> None:
    target = _target(MODEL, dispatch, link)
    variants = [
        Variant("torch", split_factor=split, engine=engine) for split in (2, 4) for engine in ("streams", "threads")
    ]
    variants.append(Variant("torch", receive="exact"))
    for overlapped in variants:
        finals = {}
        for variant in (overlapped.unsplit(), overlapped.split_serial(), overlapped):
            target.poison(variant)
            final, traces = target.run(variant, ignore).traced()
            for layer, trace in enumerate(traces):
                error = errors(trace.y_TH, target.oracle(layer, trace), "fp8")
                assert error.within(TOLERANCE["fp8"]), (variant.label, layer, error)
                assert error.relative > 1e-3, "eight bits leave no such agreement: does anything quantize?"
            finals[variant.role] = final
        assert torch.equal(finals["T2s"], finals["T2o"]), overlapped.label


@HOPPER
@pytest.mark.parametrize("receive", ["worst_case", "exact"])
def test_rows_quantized_before_and_after_dispatch_give_the_same_bits(receive: str) -> None:
    variant = Variant("torch", receive=receive)  # type: ignore[arg-type]
    before, after = (_target(MODEL, dispatch, tokens=300).run(variant, ignore)() for dispatch in ("fp8", "bf16"))
    assert torch.equal(before, after)


@HOPPER
@pytest.mark.parametrize("tokens", [1, 3, 700])
def test_a_layer_of_deepseeks_shape_agrees_with_the_oracle(tokens: int) -> None:
    """With few tokens most experts get none."""
    target = _target(DEEPSEEK, tokens=tokens)
    for variant in (T2O, T2O.unsplit(), replace(T2O, receive="exact")):
        _, traces = target.run(variant, ignore).traced()
        for layer, trace in enumerate(traces):
            error = errors(trace.y_TH, target.oracle(layer, trace), "fp8")
            assert error.within(TOLERANCE["fp8"]), (variant.label, layer, error)


@HOPPER
def test_a_hundred_overlapped_runs_give_the_same_bits() -> None:
    run = _target(MODEL, link=SLOW, tokens=256).run(T2O, ignore)
    first = run()
    assert all(torch.equal(first, run()) for _ in range(100))


@HOPPER
def test_issuing_never_waits_for_the_device() -> None:
    run = _target(MODEL, link=SLOW, tokens=256).run(T2O, ignore)
    run()
    with no_wait():
        run()
