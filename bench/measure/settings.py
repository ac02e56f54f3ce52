"""How a sweep measures and decides: the YAML's ``measure`` section, resolved. Torch-free."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MeasureSettings:
    """Part of no id: it changes how well an answer is known, not what is asked."""

    passes: int = 5
    """Fresh processes, outermost: a verdict needs two at least."""
    rounds: int = 6
    """Interleaving rounds in each pass."""
    round_min_s: float = 0.5
    """A round repeats its mirrored order (A B C C B A) until it lasts at least this long."""
    warm_up_s: float = 0.2
    """Each variant runs untimed for this long (and at least three times) before the first round."""
    decide_beyond: float = 0.002
    """FASTER or SLOWER needs the whole interval of the speed-up beyond 1 +- this."""
    same_within: float = 0.01
    """SAME needs the whole interval within 1 +- this."""
    case_limit_s: float = 120.0
    """One case in one pass may take this long, build and check included."""
