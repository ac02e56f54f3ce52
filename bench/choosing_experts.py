"""What ``experts: auto`` becomes in a case: the fastest backend that agrees with the oracle, at the unsplit size.

Asked once a case, before anything of it is measured, so that T1, T2s and T2o run on the same one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from bench import correctness
from bench.measure.peers import ALONE, Peers
from bench.measure.timer import Timer
from bench.results import ExpertsChoice
from bench.targets import Target
from moe_impl import support
from moe_impl.options import BackendName, Machine, Variant
from moe_impl.variant_run import VariantRun

CALLS = 7
"""Iterations of each that are timed, by turns, after as many in which its kernels are compiled and clocks rise."""


@dataclass(frozen=True)
class Means:
    """What candidates are tried with: what measures the case, too."""

    machine: Machine
    timer: Timer
    peers: Peers = ALONE
    progress: Callable[[int], None] = lambda position: None
    before_sample: Callable[[], object] = lambda: None
    """Called before each timed iteration: empties the L2 cache where samples are to be cold."""
    announce: Callable[[BackendName], None] = lambda name: None
    """Called with the candidate whose turn begins, which is to blame for what ends the process then."""
    ruled_out: Mapping[str, str] = field(default_factory=dict)
    """Candidates that ended a process before, and how."""


def choose(
    target: Target, asking: Sequence[Variant], means: Means, earlier: ExpertsChoice | None = None
) -> ExpertsChoice:
    """Let ``experts: auto`` of ``target`` stand for one backend; what the others prepared is dropped.

    Args:
        asking: the variants that say ``auto``: what may be chosen runs them all.
        earlier: what another pass chose; it stays, if it runs here.

    Raises:
        Exception: what a candidate raised, where the process cannot go on: its device is lost, or other ranks may wait
            in a collective that this one left.
    """
    backends = support.choices(target.workload, target.link, asking, means.machine)
    if earlier is None or earlier.experts not in backends:
        earlier = _fastest(target, asking[0].unsplit(), backends, means)
    target.choose_experts(earlier.experts)
    return earlier


def _fastest(target: Target, t1: Variant, backends: Sequence[BackendName], means: Means) -> ExpertsChoice:
    """Time ``t1`` on each of ``backends``, the usual one first; a single one needs no time.

    What does not run, or is wrong, is out. Where all are, the usual one stays: its measurement says what is wrong.
    """
    if len(backends) == 1:
        return ExpertsChoice(backends[0])
    runs: dict[BackendName, VariantRun] = {}
    out = {name: means.ruled_out[name] for name in backends if name in means.ruled_out}
    for name in backends:
        if name in out:
            continue
        means.announce(name)
        run, wrong = _checked(target, replace(t1, experts=name), means)
        wrong = means.peers.complaint(wrong)
        if run is not None and wrong is None:
            runs[name] = run
        else:
            out[name] = str(wrong)
    t1_s = _medians_s(runs, means)
    return ExpertsChoice(min(t1_s, key=t1_s.__getitem__, default=backends[0]), t1_s, out)


def _medians_s(runs: Mapping[BackendName, VariantRun], means: Means) -> dict[BackendName, float]:
    """Of an iteration; every other turn in the opposite order."""
    taken_s: dict[BackendName, list[float]] = {name: [] for name in runs}
    for turn in range(2 * CALLS):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            means.announce(name)
            means.peers.align()
            means.before_sample()
            (slowest_s,) = means.peers.slowest([means.timer.time_s(runs[name])])
            if turn >= CALLS:
                taken_s[name].append(slowest_s)
    return {name: median(seconds) for name, seconds in taken_s.items()}


def _checked(target: Target, variant: Variant, means: Means) -> tuple[VariantRun | None, str | None]:
    """The run, and what is wrong with it."""
    try:
        run = target.run(variant, means.progress)
        _, traces = run.traced()
        check = correctness.against_oracle(traces, target.oracle, target.workload.precision)
        run.ready()
    except Exception as error:  # another library's kernels: whatever ails them, there are others
        if means.peers.size > 1:
            raise
        target.synchronize()  # a lost device raises here
        return None, f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
    return run, None if check.passed else correctness.said_wrong(check)
