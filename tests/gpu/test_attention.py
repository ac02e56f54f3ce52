"""Stage ``attention`` on a GPU: right at the models' widths, without a host wait, in the memory that it is billed."""

import gc
from dataclasses import replace

import pytest
import torch
from no_wait import no_wait
from small_target import MODEL, SLOW, ignore
from torch import Tensor

from bench.cases import Case
from bench.correctness import ATTENTION_AGREEMENT, errors
from bench.targets import Target, Targets
from moe_impl import costs
from moe_impl.attention import AttentionLayer, AttentionStandIn, GqaLayer, MlaLayer, draw_attention
from moe_impl.attention_shapes import ATTENTION_SHAPES, AttentionShape, GqaShape, MlaShape, Phase
from moe_impl.options import Attention, Variant, Workload

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
MLA = replace(ATTENTION_SHAPES["deepseek-v3"], heads=16)  # its widths, a sixteenth of its size
GQA = ATTENTION_SHAPES["qwen3-30b-a3b"]
EVERY_KIND = pytest.mark.parametrize(("shape", "phase"), [(s, p) for s in (MLA, GQA) for p in ("prefill", "decode")])


def _work(shape: AttentionShape, phase: Phase, tokens: int, context: int = 700) -> Workload:
    return Workload(MODEL, 8, 2, tokens, "bf16", attention=Attention(context, phase, shape))


def _target(workload: Workload) -> Target:
    return Targets(CUDA).build(Case(workload, SLOW, ()))


def _stand_in(workload: Workload) -> tuple[AttentionStandIn, list[AttentionLayer]]:
    layers = [draw_attention(workload, layer, CUDA) for layer in range(workload.layers)]
    return AttentionStandIn(workload.attention, layers), layers  # type: ignore[arg-type]


def _x(tokens: int) -> Tensor:
    return torch.randn(tokens, MODEL.hidden_size, device=CUDA, dtype=torch.bfloat16)


def _expected(x_TH: Tensor, weights: AttentionLayer, shape: AttentionShape) -> Tensor:
    """fp32 on the CPU, scores in full; a cache for each token, or one for all."""
    x, T = x_TH.cpu().float(), len(x_TH)
    plain = {name: tensor.cpu().float() for name, tensor in vars(weights).items()}
    if isinstance(weights, GqaLayer):
        assert isinstance(shape, GqaShape)
        query = (x @ plain["qkv"][: shape.heads * shape.head_dim].T).view(T, shape.heads, shape.head_dim)
        keys, values = (
            plain[name].repeat_interleave(shape.heads // shape.kv_heads, 1).expand(T, -1, -1, -1)
            for name in ("keys_ZGCQ", "values_ZGCQ")
        )
    else:
        assert isinstance(weights, MlaLayer)
        assert isinstance(shape, MlaShape)
        query = (x @ plain["down"][: shape.q_lora_rank].T @ plain["query_up"].T).view(T, shape.heads, -1)
        latent, rotary = plain["latent_ZCV"].split((shape.kv_lora_rank, shape.rope_head_dim), -1)
        expanded = torch.einsum("zcr,nkr->znck", latent, plain["expand"])
        keys, values = expanded.split((shape.nope_head_dim, shape.v_head_dim), -1)
        keys = torch.cat((keys, rotary[:, None].expand(-1, shape.heads, -1, -1)), -1)
        keys, values = keys.expand(T, -1, -1, -1), values.expand(T, -1, -1, -1)
    scores = torch.einsum("tnq,tncq->tnc", query, keys) / query.shape[-1] ** 0.5
    read = torch.einsum("tnc,tncd->tnd", scores.softmax(-1), values)
    return read.flatten(1) @ plain["output"].T


@EVERY_KIND
@pytest.mark.parametrize("tokens", [1, 37])
def test_it_makes_what_attention_means(shape: AttentionShape, phase: Phase, tokens: int) -> None:
    stand_in, layers = _stand_in(_work(shape, phase, tokens))
    x = _x(tokens)
    found = stand_in.run(x, slice(0, tokens), 1).cpu()
    assert errors(found, _expected(x, layers[1], shape)).within(2e-2)


@EVERY_KIND
def test_parts_make_what_the_whole_makes(shape: AttentionShape, phase: Phase) -> None:
    stand_in, _ = _stand_in(_work(shape, phase, 515))
    x = _x(515)
    whole = stand_in.run(x, slice(0, 515), 0)
    parts = [stand_in.run(x[part], part, 0) for part in (slice(0, 257), slice(257, 515))]
    assert errors(torch.cat(parts), whole).within(ATTENTION_AGREEMENT)


@EVERY_KIND
def test_the_host_never_waits(shape: AttentionShape, phase: Phase) -> None:
    target = _target(_work(shape, phase, 64))
    run = target.run(Variant("torch"), ignore)
    run()
    stand_in, x = target._attention, _x(64)
    with no_wait():
        stand_in.run(x, slice(0, 64), 0)  # type: ignore[union-attr]
        run()
    torch.cuda.synchronize()


@pytest.mark.parametrize("name", ["deepseek-v3", "qwen3-235b-a22b"])
@pytest.mark.parametrize(("phase", "tokens", "context"), [("prefill", 2048, 8192), ("decode", 64, 8192)])
def test_it_allocates_what_it_is_billed(name: str, phase: Phase, tokens: int, context: int) -> None:
    workload = _work(ATTENTION_SHAPES[name], phase, tokens, context)
    stand_in, layers = _stand_in(replace(workload, layers=1))
    assert costs.attention_bytes(replace(workload, layers=1)) == sum(
        tensor.numel() * tensor.element_size() for tensor in vars(layers[0]).values()
    )
    x = _x(tokens)
    stand_in.run(x, slice(0, tokens), 0)
    gc.collect()  # what earlier tests left in cycles must not be freed meanwhile
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    stand_in.run(x, slice(0, tokens), 0)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before <= 1.05 * costs._attention_room(workload, tokens)
    assert torch.cuda.memory_allocated() == before


@EVERY_KIND
def test_layers_with_attention_agree_with_the_oracle_split_or_not(shape: AttentionShape, phase: Phase) -> None:
    target = _target(_work(shape, phase, 515))
    for engine in ("streams", "threads"):
        for order in ("yield_after", "yield_before"):
            overlapped = Variant("torch", engine=engine, order=order)  # type: ignore[arg-type]
            finals, entered = {}, {}
            for variant in (overlapped.unsplit(), overlapped.split_serial(), overlapped):
                target.poison(variant)
                run = target.run(variant, ignore)
                final, traces = run.traced()
                for layer, trace in enumerate(traces):
                    assert errors(trace.y_TH, target.oracle(layer, trace)).within(1e-2), (variant.label, layer)
                assert all(torch.equal(run(), final) for _ in range(5)), variant.label
                finals[variant.role], entered[variant.role] = final, traces[0].x_TH
            assert torch.equal(finals["T2s"], finals["T2o"])
            assert errors(entered["T2o"], entered["T1"]).within(ATTENTION_AGREEMENT)


def test_empty_micro_batches_attend_to_nothing() -> None:
    target = _target(_work(MLA, "decode", 3))
    variant = Variant("torch", split_factor=4)
    assert torch.equal(target.run(variant, ignore)(), target.run(variant.split_serial(), ignore)())
