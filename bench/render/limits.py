"""What a run's numbers cannot say, by what was run: one line a limit."""

from bench.render import words
from bench.report_model import ReportModel
from moe_impl.support import EMULATED, MEASURED_COMM, MODELLED_COMM, NATIVE, PREDRAWN_SIZES

OF_LABELS = {
    MODELLED_COMM: (
        "Communication is a model: each transfer lasts alpha + bytes / bandwidth of the link and copies its rows "
        "through this GPU's memory; congestion, late ranks and other jobs are not in it."
    ),
    "hypothetical": "The link's figures were published for another GPU than the one that computed.",
    MEASURED_COMM: "Communication goes to this machine's memory and back: no peer, no network and no late rank in it.",
    EMULATED: (
        "NVFP4 products are computed exactly, without FP4 tensor cores: a GPU that has them computes faster, so that "
        "communication weighs more there."
    ),
    NATIVE: (
        "The kernel for FP4 tensor cores was written, compiled and inspected without a GPU that has them, so its tiles "
        "are not tuned: only this run's own checks vouch for it."
    ),
    PREDRAWN_SIZES: "The host knew the sizes of transfers beforehand; a program that must learn them waits.",
}
"""How a label begins -> what it keeps from being said."""


def of(model: ReportModel) -> list[str]:
    """Those that hold for any series of the run."""
    if model.on_cpu:
        return ["Nothing about time: a CPU runs the stages one after the other."]
    labels = [label for section in model.sections for label in section.labels]
    labels += [label for found in model.alone for label in found.labels]
    said = [limit for begin, limit in OF_LABELS.items() if any(label.startswith(begin) for label in labels)]
    workloads = [series.workload for series in (*(s.series for s in model.sections), *(a.series for a in model.alone))]
    if any(work.ep_size > 1 for work in workloads) and all(machine.ranks == 1 for machine in model.machines):
        said.append("One GPU plays one rank: its peers are clones that are never late and hold equal shares.")
    if any(work.attention is None for work in workloads):
        said.append("The MoE layer alone: no attention, which an engine may overlap, too.")
    steps = [row.step for section in model.sections for row in section.rows if row.step is not None]
    if any(step.measured_layers < step.moe_layers for step in steps):
        said.append("A few layers stand for the model: the first and the last, which overlap with nothing, weigh more.")
    if model.unwatched:
        share = "" if model.unwatched == 1 else f" in {words.percent(model.unwatched)} of the Trials"
        said.append(f"Clocks and power were not watched{share}: a GPU that was slowed down would not show.")
    if model.noise.min_detectable_worst is not None:
        least, worst = map(words.percent, (model.noise.min_detectable, model.noise.min_detectable_worst))
        said.append(f"Effects smaller than the noise lets one see: {least} in the middle row, {worst} in the worst.")
    return said
