"""How well this process can time: the timer's bias, a cold cache, and what two equal variants seem to differ by."""

from statistics import median

import torch

from bench.cases import Case
from bench.deciding import stats
from bench.doctor.findings import Finding, State
from bench.measure.protocol import measure
from bench.measure.timer import Timer
from bench.settings import MeasureSettings
from bench.targets import Targets
from moe_impl.links import LOCAL
from moe_impl.options import Variant, Workload
from moe_impl.shapes import ModelShape

SPIN_S = 20e-6
SPINS = 200
MOST_BIAS_S = 5e-6
NOISE_SETTINGS = MeasureSettings(passes=1, rounds=8, round_min_s=0.25, warm_up_s=1.5)
ON_GPU = Workload(ModelShape(2048, 768, 64, 8), ep_size=8, layers=4, tokens=8192, precision="bf16")
ON_CPU = Workload(ModelShape(128, 64, 8, 2), ep_size=4, layers=2, tokens=32, precision="bf16")


def timer_bias(device: torch.device, timer: Timer) -> Finding:
    """A kernel that spins for 20 us on the GPU's own clock, timed with its launch queued beforehand."""
    from bench.measure.spin import spin

    spin(SPIN_S, device)
    found = median(timer.device_time_s(lambda: spin(SPIN_S, device)) for _ in range(SPINS))
    bias = found - SPIN_S
    said = f"a kernel of 20 us is timed as {found * 1e6:.1f} us ({bias * 1e6:+.1f} us)"
    state = State.OK if abs(bias) <= MOST_BIAS_S else State.WARN
    return Finding("timer", state, said, {"true_s": SPIN_S, "timed_s": found, "bias_s": bias})


def cold_cache(device: torch.device, timer: Timer) -> Finding:
    """That the flush empties L2: shown by a read that gets slower."""
    from bench.measure.l2 import COLD_OVER_HOT, L2Flush, hot_and_cold_s

    flush = L2Flush(device)
    hot_s, cold_s = hot_and_cold_s(flush, timer.device_time_s, device)
    proved = cold_s >= COLD_OVER_HOT * hot_s
    said = f"{flush.l2_bytes / 2**20:.0f} MiB; a read takes {hot_s * 1e6:.1f} us hot, {cold_s * 1e6:.1f} us flushed"
    data = {"l2_bytes": flush.l2_bytes, "hot_s": hot_s, "cold_s": cold_s, "proved": proved}
    remedy = None if proved else "the flush is not proved to work: kernel sweeps would be warm"
    return Finding("l2", State.OK if proved else State.WARN, said, data, remedy)


def noise_floor(device: torch.device, timer: Timer) -> Finding:
    """One MoE run as two variants: what tells them apart is noise of this process; others may differ by more."""
    workload = ON_GPU if device.type == "cuda" else ON_CPU
    variant = Variant("torch").unsplit()
    run = Targets(device).build(Case(workload, LOCAL, (variant,))).run(variant, lambda position: None)
    samples = measure({"A": run, "A again": run}, timer, NOISE_SETTINGS, lambda *_: None)
    rounds = []
    for index in range(NOISE_SETTINGS.rounds):
        sides = [[s for s, r in zip(one.samples_s, one.rounds, strict=True) if r == index] for one in samples.values()]
        rounds.append(stats.paired_logs(*sides))
    found = stats.estimate(rounds)
    detectable = found.min_detectable or 0.0
    iteration_s = median(samples["A"].samples_s)
    data = {
        "iteration_s": iteration_s,
        "speedup": found.speedup,
        "within_sd": found.within_sd,
        "min_detectable": detectable,
        "timer": timer.name,
    }
    said = (
        f"A/A within one process: {found.speedup:.4f}x, {detectable:.2%} detectable at "
        f"{iteration_s * 1e3:.2f} ms an iteration; between processes it is larger"
    )
    if detectable > NOISE_SETTINGS.same_within:
        return Finding("noise", State.WARN, said, data, "something else uses this machine, or its clocks wander")
    return Finding("noise", State.OK, said, data)
