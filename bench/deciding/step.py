"""What a row means for a step of the whole model: its saving an iteration, over all MoE layers. Extrapolated."""

from dataclasses import dataclass

from bench.deciding.compare import CLAIMS, Comparison
from moe_impl.shapes import PRESETS, ModelShape


@dataclass(frozen=True)
class Step:
    """One forward of the model, its MoE layers alone."""

    saved_s: float
    """T1 - T2o, times the layers of the model over those measured; negative where TBO costs."""
    moe_layers: int
    """Of the model."""
    measured_layers: int


def step(comparison: Comparison) -> Step | None:
    """None without a verdict that there is a difference, for a row with limits, and for a model of unknown depth."""
    layers = _moe_layers(comparison.workload.model)
    times = comparison.baseline_s, comparison.variant_s
    if comparison.verdict not in CLAIMS or comparison.limits or layers is None or None in times:
        return None
    measured = comparison.workload.layers
    return Step(((times[0] or 0.0) - (times[1] or 0.0)) / measured * layers, layers, measured)


def _moe_layers(model: ModelShape) -> int | None:
    """The model's own, or its preset's: runs of older versions stored none."""
    preset = PRESETS.get(model.name)
    return preset.moe_layers if model.moe_layers is None and preset == model and preset else model.moe_layers
