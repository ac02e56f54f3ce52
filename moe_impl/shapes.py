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

from dataclasses import dataclass, field
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
    name: str = field(default="inline", compare=False, metadata={"identity": False})
    """Only for people: two equal shapes are one model whatever they are called."""

    def __post_init__(self) -> None:
        for size in ("hidden_size", "intermediate_size"):
            value = getattr(self, size)
            if value < NVFP4_BLOCK or value % NVFP4_BLOCK:
                raise ValueError(f"{size} must be a positive multiple of {NVFP4_BLOCK} (one NVFP4 block), got {value}")
        if self.num_experts < 1:
            raise ValueError(f"num_experts must be at least 1, got {self.num_experts}")
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(f"top_k must lie in 1..num_experts ({self.num_experts}), got {self.top_k}")

    @property
    def expert_parameters(self) -> int:
        """Weights of one expert: gate and up [2I, H], down [H, I]."""
        return 3 * self.hidden_size * self.intermediate_size


PRESETS: dict[str, ModelShape] = {
    # https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/config.json (n_group 8, topk_group 4, noaux_tc)
    "deepseek-v3": ModelShape(
        name="deepseek-v3",
        hidden_size=7168,
        intermediate_size=2048,
        num_experts=256,
        top_k=8,
        router=Router(scoring="sigmoid", selection_bias=True, num_groups=8, top_groups=4, scaling_factor=2.5),
    ),
}
"""Named shapes for the sweep file's ``case.model``."""
