"""Attention shapes of the model presets, and how much one layer of each weighs, keeps and multiplies. Torch-free.

The stand-in multiplies what the model multiplies and no more: neither norms nor rotary embeddings, which cost a few
passes over activations, are part of it.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

Phase = Literal["prefill", "decode"]

ROOM_BYTES = 2**28
"""Expanded keys and values, or scores, that multi-head latent attention keeps at once; always at least one head's or
one token's. What is larger is done in turns."""
_BF16_BYTES = 2


@dataclass(frozen=True)
class GqaShape:
    """Grouped-query attention: ``heads / kv_heads`` query heads read one cached key and value.

    Raises:
        ValueError: ``kv_heads`` does not divide ``heads``.
    """

    kind: ClassVar[str] = "GQA"

    heads: int
    kv_heads: int
    head_dim: int
    note: str | None = field(default=None, compare=False, metadata={"identity": False})
    """What every number of this attention must say of itself."""

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads ({self.heads}), got {self.kv_heads}")

    @property
    def cached_values(self) -> int:
        """Of one cached token: a key and a value per KV head."""
        return 2 * self.kv_heads * self.head_dim

    def projection_weights(self, hidden_size: int) -> int:
        """Weights that every token passes: query, key, value, output."""
        return hidden_size * self.head_dim * 2 * (self.heads + self.kv_heads)

    def products(self, phase: Phase) -> int:
        """Multiplications of one token with one cached token (score, then value): also the values of its query and
        of what its heads read, together."""
        return 2 * self.heads * self.head_dim

    expansion_weights: ClassVar[int] = 0
    """Nothing lies between the cache and the heads."""
    expanded_values: ClassVar[int] = 0

    def room_bytes(self, context: int, tokens: int, phase: Phase) -> int:
        """A fused kernel keeps no scores."""
        return 0


@dataclass(frozen=True)
class MlaShape:
    """Multi-head latent attention: one latent and one rotary key a cached token, shared by all heads.

    Prefill expands the latent to every head's key and value. Decode absorbs that matrix into query and output instead
    and lets all heads read the latent itself.
    """

    kind: ClassVar[str] = "MLA"

    heads: int
    q_lora_rank: int
    kv_lora_rank: int
    nope_head_dim: int
    """Of a query or key, the part without position."""
    rope_head_dim: int
    v_head_dim: int
    """At most ``nope_head_dim + rope_head_dim``."""
    note: str | None = field(default=None, compare=False, metadata={"identity": False})

    def __post_init__(self) -> None:
        if self.v_head_dim > self.qk_head_dim:
            raise ValueError(f"v_head_dim must be at most {self.qk_head_dim} (a key's), got {self.v_head_dim}")

    @property
    def qk_head_dim(self) -> int:
        """A head's query and expanded key."""
        return self.nope_head_dim + self.rope_head_dim

    @property
    def cached_values(self) -> int:
        """Of one cached token: 576 in DeepSeek-V3."""
        return self.kv_lora_rank + self.rope_head_dim

    def projection_weights(self, hidden_size: int) -> int:
        """Weights that every token passes: query down and up, KV down, output."""
        query = self.q_lora_rank * (hidden_size + self.heads * self.qk_head_dim)
        return query + hidden_size * (self.cached_values + self.heads * self.v_head_dim)

    @property
    def expansion_weights(self) -> int:
        """Latent to keys and values: every cached token passes them in prefill, every token in decode."""
        return self.kv_lora_rank * self.heads * (self.nope_head_dim + self.v_head_dim)

    @property
    def expanded_values(self) -> int:
        """Keys and values of one cached token after expansion."""
        return self.heads * (self.qk_head_dim + self.v_head_dim)

    def products(self, phase: Phase) -> int:
        """As :meth:`GqaShape.products`; absorbed heads are as wide as the latent."""
        if phase == "prefill":
            return self.heads * (self.qk_head_dim + self.v_head_dim)
        return self.heads * (self.cached_values + self.kv_lora_rank)

    def heads_at_once(self, context: int) -> int:
        """Heads whose keys and values prefill expands together."""
        return max(1, min(self.heads, ROOM_BYTES // self._head_bytes(context)))

    def tokens_at_once(self, context: int) -> int:
        """Tokens whose scores decode keeps together."""
        return max(1, ROOM_BYTES // self._token_bytes(context))

    def room_bytes(self, context: int, tokens: int, phase: Phase) -> int:
        """Most bytes that the two above keep for a micro-batch of ``tokens`` tokens."""
        if phase == "prefill":
            return self.heads_at_once(context) * self._head_bytes(context)
        return min(tokens, self.tokens_at_once(context)) * self._token_bytes(context)

    def _head_bytes(self, context: int) -> int:
        """What the expansion wrote, then keys, and values padded to their width: one kernel wants them equally wide."""
        return _BF16_BYTES * context * (self.nope_head_dim + self.v_head_dim + 2 * self.qk_head_dim)

    def _token_bytes(self, context: int) -> int:
        """Scores and their softmax."""
        return 2 * _BF16_BYTES * context * self.heads


AttentionShape = GqaShape | MlaShape

# config.json of deepseek-ai/DeepSeek-V3 and DeepSeek-R1: num_attention_heads 128, q_lora_rank 1536, kv_lora_rank 512,
# qk_nope_head_dim 128, qk_rope_head_dim 64, v_head_dim 128
_DEEPSEEK_V3 = MlaShape(128, 1536, 512, 128, 64, 128)
# openai/gpt-oss-{120b,20b} config.json: 64 heads, 8 KV heads, head_dim 64, sliding_window 128 in every second layer
_GPT_OSS = GqaShape(64, 8, 64, note="every layer reads the whole context; in gpt-oss every second one reads 128 tokens")

ATTENTION_SHAPES: dict[str, AttentionShape] = {
    "deepseek-v3": _DEEPSEEK_V3,
    "deepseek-r1": _DEEPSEEK_V3,
    # moonshotai/Kimi-K2-Instruct config.json: DeepSeek-V3's with num_attention_heads 64
    "kimi-k2": MlaShape(64, 1536, 512, 128, 64, 128),
    # baidu/ERNIE-4.5-300B-A47B-PT config.json: num_attention_heads 64, num_key_value_heads 8, hidden_size / heads 128
    "ernie-4.5-300b-a47b": GqaShape(64, 8, 128),
    # baidu/ERNIE-4.5-21B-A3B-PT config.json: 20 heads, 4 KV heads, 2560 / 20
    "ernie-4.5-21b-a3b": GqaShape(20, 4, 128),
    # Qwen/Qwen3-30B-A3B, Qwen3-235B-A22B config.json: 32 and 64 heads, num_key_value_heads 4, head_dim 128
    "qwen3-30b-a3b": GqaShape(32, 4, 128),
    "qwen3-235b-a22b": GqaShape(64, 4, 128),
    # mistralai/Mixtral-8x7B-v0.1 config.json: 32 heads, 8 KV heads, 4096 / 32, sliding_window null
    "mixtral-8x7b": GqaShape(32, 8, 128),
    "gpt-oss-120b": _GPT_OSS,
    "gpt-oss-20b": _GPT_OSS,
}
"""By the model preset's name."""
