"""``attention`` of a case: how much context, and which phase."""

from bench.config.nodes import Node, Problems
from bench.config.readers import Key, choice, mapping, whole_number
from moe_impl.attention_shapes import Phase
from moe_impl.options import Attention

_KEYS = {"context": Key(whole_number(1), required=True), "phase": Key(choice(Phase))}


def read_attention(node: Node, path: str, problems: Problems) -> Attention | None:
    """``{context: 4096, phase: decode}``; the shape is the model preset's, which the workload looks up."""
    given = mapping(node, path, problems, _KEYS)
    return None if given is None else Attention(**given)
