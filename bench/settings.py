"""How a sweep measures and decides: the YAML's ``measure`` section, resolved. Torch-free."""

from dataclasses import dataclass
from typing import Literal

Refine = Literal["off", "break_even"]


@dataclass(frozen=True)
class SampleLimits:
    """Samples of each variant in a pass; they come in pairs, so an odd limit acts as the even one inside."""

    min: int = 20
    max: int = 400

    def __str__(self) -> str:
        return f"{self.min} to {self.max}"


@dataclass(frozen=True)
class MeasureSettings:
    """Part of no id: it changes how well an answer is known, not what is asked."""

    passes: int = 5
    """Fresh processes, outermost: a verdict needs two at least."""
    rounds: int = 6
    """Interleaving rounds in each pass; means nothing with ``stop_when``."""
    samples: SampleLimits = SampleLimits()
    """What ``stop_when`` chooses between; means nothing without it."""
    stop_when: float | None = None
    """A pass of a case ends once every ratio to T1 is known to within this fraction; None: after ``rounds``."""
    round_min_s: float = 0.5
    """A round repeats its mirrored order (A B C C B A) until it lasts at least this long."""
    warm_up_s: float = 0.2
    """Each variant runs untimed at least this long before the first round, until steady (bench.measure.protocol)."""
    cold_l2: bool = False
    """The L2 cache is flushed before every sample: weights come from memory also where a layer's would stay."""
    cross_check: bool = True
    """The last pass profiles a few iterations more, when a case's samples are taken: the timer against CUPTI."""
    repeat_doubtful: bool = True
    """A case that carries a doubt is timed once more, each variant alone until steady (bench.measure.repeat)."""
    aa: bool = False
    """T1 runs twice under two names, and the second is judged against the first."""
    decide_beyond: float = 0.002
    """FASTER or SLOWER needs the whole interval of the speed-up beyond 1 +- this."""
    same_within: float = 0.01
    """SAME needs the whole interval within 1 +- this."""
    refine: Refine = "off"
    """``break_even``: after all passes, token counts inside each break-even's bracket are measured, too."""
    refine_cases: int = 8
    """At most so many cases are added; means nothing without ``refine``."""
    refine_limit_s: float = 600.0
    """No new round of refinement is begun later than this after the first; likewise."""
    link_sensitivity: bool = False
    """The cases of a modelled link's bracket again, at half and at twice its bandwidth."""
    case_limit_s: float = 120.0
    """One case in one pass may take this long, build and check included."""

    @property
    def adds_cases(self) -> bool:
        """Whether verdicts may ask for cases that the sweep file does not list."""
        return self.refine != "off" or self.link_sensitivity
