"""Model shapes and the one legend of shape letters. Torch-free: it must not know tensors.

Legend (used in every docstring and as suffixes of names, as in ``x_TH``):

====== ==================================================================
T      tokens of this rank in one forward (of one micro-batch where said)
H      hidden_size
I      intermediate_size of one expert (gemm1 has N = 2I: gate, then up)
E      num_experts of the model
K      top_k, experts per token
R      ep_size, ranks of the expert-parallel group
L      experts held by this rank, E / R
M      rows this rank receives: one per (token, destination rank) pair
P      (row, local expert) pairs, the rows of the grouped GEMMs
====== ==================================================================
"""

from dataclasses import dataclass, field, replace
from typing import Literal

Scoring = Literal["softmax", "sigmoid"]

NVFP4_BLOCK = 16
"""Elements that share one e4m3 scale; H and I must be multiples of it."""


@dataclass(frozen=True)
class Router:
    """How a model turns logits [T, E] into top-k ids and weights."""

    scoring: Scoring = "softmax"
    selection_bias: bool = False
    """Adds a per-expert bias to the scores that select, not to those that weigh."""
    num_groups: int = 1
    top_groups: int = 1
    """Experts come from the ``top_groups`` groups with the largest sum of their two best (biased) scores."""
    renormalize: bool = True
    """Divide the K weights by their sum."""
    scaling_factor: float = 1.0
    """Multiplies the weights last."""

    def even(self) -> "Router":
        """The same weights without groups and bias: the K largest logits choose."""
        return Router(self.scoring, renormalize=self.renormalize, scaling_factor=self.scaling_factor)


@dataclass(frozen=True)
class ModelShape:
    """The sizes of one MoE layer, and its router.

    Raises:
        ValueError: a size that no machine could run, naming the field.
    """

    hidden_size: int
    intermediate_size: int
    num_experts: int
    top_k: int
    router: Router = Router()
    shared_experts: int = 0
    """Experts of ``intermediate_size`` that every token passes on its own rank."""
    name: str = field(default="inline", compare=False, metadata={"identity": False})
    """Only for people: two equal shapes are one model whatever they are called."""
    note: str | None = field(default=None, compare=False, metadata={"identity": False})
    """What every number of this model must say of itself, where the layer measured is not quite the model's own."""
    moe_layers: int | None = field(default=None, compare=False, metadata={"identity": False})
    """MoE layers of the whole model, to read a saving as one of its steps; None where nobody knows."""

    def __post_init__(self) -> None:
        for size in ("hidden_size", "intermediate_size"):
            value = getattr(self, size)
            if value < NVFP4_BLOCK or value % NVFP4_BLOCK:
                raise ValueError(f"{size} must be a positive multiple of {NVFP4_BLOCK} (one NVFP4 block), got {value}")
        if self.num_experts < 1:
            raise ValueError(f"num_experts must be at least 1, got {self.num_experts}")
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(f"top_k must lie in 1..num_experts ({self.num_experts}), got {self.top_k}")
        if self.shared_experts < 0:
            raise ValueError(f"shared_experts must not be negative, got {self.shared_experts}")

    @property
    def expert_parameters(self) -> int:
        """Weights of one expert: gate and up [2I, H], down [H, I]."""
        return 3 * self.hidden_size * self.intermediate_size


_DEEPSEEK_V3_ROUTER = Router(scoring="sigmoid", selection_bias=True, num_groups=8, top_groups=4, scaling_factor=2.5)
_ERNIE_ROUTER = Router(selection_bias=True)
"""Softmax scores plus ``moe_statics.e_score_correction_bias`` choose; the chosen experts' unbiased scores, divided by
their sum, weigh (PaddlePaddle/ERNIE ernie/moe/moe_layer.py; transformers modeling_ernie4_5_moe.py)."""
_GPT_OSS_NOTE = "shape only: gpt-oss has a clamped SwiGLU, biases and MXFP4 weights"

# https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/config.json (n_group 8, topk_group 4, noaux_tc,
# n_shared_experts 1; num_hidden_layers 61, first_k_dense_replace 3)
_DEEPSEEK_V3 = ModelShape(
    7168,
    2048,
    num_experts=256,
    top_k=8,
    router=_DEEPSEEK_V3_ROUTER,
    shared_experts=1,
    name="deepseek-v3",
    moe_layers=58,
)

_MODELS = (
    _DEEPSEEK_V3,
    # deepseek-ai/DeepSeek-R1 config.json: model_type deepseek_v3, the same MoE layer
    replace(_DEEPSEEK_V3, name="deepseek-r1"),
    # moonshotai/Kimi-K2-Instruct config.json (kimi_k2: n_group 1, topk_group 1, noaux_tc, norm_topk_prob,
    # n_shared_experts 1; num_hidden_layers 61, first_k_dense_replace 1)
    ModelShape(
        7168,
        2048,
        num_experts=384,
        top_k=8,
        router=Router(scoring="sigmoid", selection_bias=True, scaling_factor=2.827),
        shared_experts=1,
        name="kimi-k2",
        moe_layers=60,
    ),
    # baidu/ERNIE-4.5-300B-A47B-PT config.json (ernie4_5_moe: moe_num_experts, moe_k, no shared expert;
    # num_hidden_layers 54, moe_layer_start_index 3)
    ModelShape(8192, 3584, num_experts=64, top_k=8, router=_ERNIE_ROUTER, name="ernie-4.5-300b-a47b", moe_layers=51),
    # baidu/ERNIE-4.5-21B-A3B-PT config.json (ernie4_5_moe, moe_num_shared_experts 2; num_hidden_layers 28,
    # moe_layer_start_index 1)
    ModelShape(
        2560,
        1536,
        num_experts=64,
        top_k=6,
        router=_ERNIE_ROUTER,
        shared_experts=2,
        name="ernie-4.5-21b-a3b",
        moe_layers=27,
    ),
    # Qwen/Qwen3-30B-A3B and Qwen/Qwen3-235B-A22B config.json (qwen3_moe: norm_topk_prob true; all layers
    # are MoE layers, as in the models below)
    ModelShape(2048, 768, num_experts=128, top_k=8, name="qwen3-30b-a3b", moe_layers=48),
    ModelShape(4096, 1536, num_experts=128, top_k=8, name="qwen3-235b-a22b", moe_layers=94),
    # mistralai/Mixtral-8x7B-v0.1 config.json (num_local_experts 8, silu, no biases)
    ModelShape(4096, 14336, num_experts=8, top_k=2, name="mixtral-8x7b", moe_layers=32),
    # openai/gpt-oss gpt_oss/torch/model.py, openai/gpt-oss-{120b,20b} config.json. Its softmax over the K chosen logits
    # is the softmax over all of them, renormalised.
    ModelShape(2880, 2880, num_experts=128, top_k=4, name="gpt-oss-120b", moe_layers=36, note=_GPT_OSS_NOTE),
    ModelShape(2880, 2880, num_experts=32, top_k=4, name="gpt-oss-20b", moe_layers=24, note=_GPT_OSS_NOTE),
)
PRESETS: dict[str, ModelShape] = {model.name: model for model in _MODELS}
"""Named shapes for the sweep file's ``case.model``."""
