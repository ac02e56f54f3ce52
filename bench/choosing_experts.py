"""What ``experts: auto`` becomes in a case: the fastest backend that agrees with the oracle, at the unsplit size.

Asked once a case, before anything of it is measured, so that T1, T2s and T2o run on the same one.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from bench import correctness
from bench.measure.peers import Peers
from bench.measure.timer import Timer
from bench.results import ExpertsChoice
from bench.targets import Target
from moe_impl import support
from moe_impl.options import BackendName, Machine, Variant
from moe_impl.variant_run import VariantRun

CALLS = 7
"""Iterations of each that are timed, by turns, after as many in which its kernels are compiled and clocks rise."""


def choose(
    target: Target,
    asking: Sequence[Variant],
    machine: Machine,
    timer: Timer,
    peers: Peers,
    progress: Callable[[int], None],
    earlier: ExpertsChoice | None = None,
) -> ExpertsChoice:
    """Let ``experts: auto`` of ``target`` stand for one backend.

    Args:
        asking: the variants that say ``auto``: what may be chosen runs them all.
        earlier: what another pass chose; it stays, if it runs here.
    """
    backends = support.choices(target.workload, target.link, asking, machine)
    if earlier is None or earlier.experts not in backends:
        earlier = _fastest(target, asking[0].unsplit(), backends, timer, peers, progress)
    target.choose_experts(earlier.experts)
    return earlier


def _fastest(
    target: Target,
    t1: Variant,
    backends: Sequence[BackendName],
    timer: Timer,
    peers: Peers,
    progress: Callable[[int], None],
) -> ExpertsChoice:
    """Time ``t1`` on each of ``backends``, the usual one first; a single one needs no time.

    What does not run, or is wrong, is out. Where all are, the usual one stays: its measurement says what is wrong.
    """
    if len(backends) == 1:
        return ExpertsChoice(backends[0])
    runs: dict[BackendName, VariantRun] = {}
    out: dict[BackendName, str] = {}
    for name in backends:
        run, wrong = _checked(target, replace(t1, experts=name), progress)
        wrong = peers.complaint(wrong)
        if run is not None and wrong is None:
            runs[name] = run
        else:
            out[name] = str(wrong)
    taken_s: dict[BackendName, list[float]] = {name: [] for name in runs}
    for turn in range(2 * CALLS):
        for name, run in runs.items():
            peers.align()
            (slowest_s,) = peers.slowest([timer.time_s(run)])
            if turn >= CALLS:
                taken_s[name].append(slowest_s)
    t1_s = {name: median(seconds) for name, seconds in taken_s.items()}
    return ExpertsChoice(min(t1_s, key=t1_s.__getitem__, default=backends[0]), t1_s, out)


def _checked(target: Target, variant: Variant, progress: Callable[[int], None]) -> tuple[VariantRun | None, str | None]:
    """The run, and what is wrong with it."""
    try:
        run = target.run(variant, progress)
        _, traces = run.traced()
        check = correctness.against_oracle(traces, target.oracle, target.workload.precision)
        run.ready()
    except Exception as error:  # another library's kernels: whatever ails them, there are others
        return None, f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
    return run, None if check.passed else correctness.said_wrong(check)
