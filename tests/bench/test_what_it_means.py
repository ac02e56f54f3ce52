"""What a report makes of verdicts: a step of the model, the best split factor, the largest batch that fits."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import synthetic

from bench import report
from bench.render import document, markdown, tables, worth
from bench.report_model import ReportModel
from bench.results import Measurement, Status, Trial
from moe_impl import support
from moe_impl.options import Workload
from moe_impl.shapes import PRESETS, ModelShape
from moe_impl.support import BF16_TRAFFIC, unsupported_reason

Change = Callable[[Measurement, int, Workload], Measurement]


def built(trials: list[Trial]) -> ReportModel:
    return report.build(synthetic.StubRun(trials))


def modelled(model: ModelShape, layers: int = 2) -> list[Trial]:
    cases = [
        replace(case, workload=replace(case.workload, model=model))
        for case in synthetic.cases((256, 8192), layers=layers)
    ]
    return synthetic.Builder(pairs=4).trials(cases)


DEEPSEEK = PRESETS["deepseek-v3"]


# A step of the model


def test_a_step_is_the_saving_of_a_layer_over_all_moe_layers() -> None:
    (section,) = built(modelled(DEEPSEEK)).sections
    small, large = section.rows
    assert small.step is not None
    assert large.step is not None
    assert small.step.saved_s < 0 < large.step.saved_s
    saved_s = (large.comparison.baseline_s or 0) - (large.comparison.variant_s or 0)
    assert large.step.saved_s == pytest.approx(29 * saved_s)
    (said,) = worth.steps(section)
    assert said.startswith("A step over 58 MoE layers (extrapolated from 2): saves ")
    assert " at 8192; costs " in said
    assert said.endswith(" at 256 tokens.")
    assert said in tables.decision(section).notes


def test_a_run_of_an_older_version_knows_its_preset_and_an_inline_shape_nothing() -> None:
    stored = replace(DEEPSEEK, moe_layers=None)
    assert [row.step.moe_layers for row in built(modelled(stored)).sections[0].rows if row.step] == [58, 58]
    for unknown in (replace(stored, name="inline"), replace(stored, top_k=4)):
        assert worth.steps(built(modelled(unknown)).sections[0]) == []


def test_all_layers_measured_extrapolate_nothing() -> None:
    (said,) = worth.steps(built(modelled(replace(DEEPSEEK, moe_layers=2))).sections[0])
    assert said.startswith("A step over 2 MoE layers: saves ")


def test_a_row_without_a_verdict_or_with_a_limit_saves_nothing() -> None:
    undecided = built(synthetic.Builder(passes=1, pairs=4).trials(synthetic.cases((8192,))))
    limited = built(
        synthetic.Builder(pairs=4, change=lambda m, p, w: replace(m, limits=(BF16_TRAFFIC,))).trials(
            synthetic.cases((8192,))
        )
    )
    for model in (undecided, limited):
        assert [row.step for row in model.sections[0].rows] == [None]
        assert json.loads(json.dumps(document.document(model)))["comparisons"][0]["step"] is None


# The best split factor


def test_the_best_split_factor_of_each_case_is_named_with_its_interval() -> None:
    model = built(synthetic.Builder(pairs=4).trials(synthetic.cases((1024, 8192), splits=(2, 4))))
    assert [found.best.variant.split_factor for found in model.best_splits] == [2, 4]
    small, large = (found.best for found in model.best_splits)
    (said,) = worth.best_splits(model)
    assert said == (
        f"Best split factor (streams torch, bf16): x2 at 1024, {small.speedup:.3f}x [{small.low:.3f}, {small.high:.3f}]"
        f"; x4 at 8192, {large.speedup:.3f}x [{large.low:.3f}, {large.high:.3f}]."
    )
    assert said in markdown.page(model)
    told = json.loads(json.dumps(document.document(model)))["best_splits"]
    assert [(row["split_factor"], row["next_split_factor"], row["told_apart"]) for row in told] == [
        (2, 4, True),
        (4, 2, True),
    ]


def test_split_factors_that_differ_by_noise_alone_are_not_told_apart() -> None:
    def alike(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        exact = synthetic.Truth().span_s(work, synthetic.cases([1])[0].link, m.variant)
        return synthetic.rescaled(m, 10e-3 / exact) if m.role == "T2o" else m

    model = built(synthetic.Builder(pairs=4, change=alike).trials(synthetic.cases((8192,), splits=(2, 4))))
    (found,) = model.best_splits
    assert not found.told_apart
    (said,) = worth.best_splits(model)
    assert said.endswith(f", not told from x{found.next.variant.split_factor}.")


def test_engines_and_orders_are_no_split_factors() -> None:
    (case,) = synthetic.cases((1024,))
    threads = replace(synthetic.variant(), engine="threads")
    case = replace(case, variants=synthetic.with_t1_and_t2s(synthetic.variant(), threads))
    assert built(synthetic.Builder(passes=2, pairs=2).trials([case])).best_splits == ()


def test_a_split_factor_that_failed_in_a_pass_is_not_the_best() -> None:
    def fail(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        bad = (m.variant.split_factor, m.role, pass_index) == (4, "T2o", 1)
        return synthetic.failed(m, Status.HANG) if bad else m

    trials = synthetic.Builder(pairs=4, change=fail).trials(synthetic.cases((8192,), splits=(2, 4)))
    assert built(trials).best_splits == ()
    three = synthetic.Builder(pairs=4, change=fail).trials(synthetic.cases((8192,), splits=(2, 3, 4)))
    assert [found.best.variant.split_factor for found in built(three).best_splits] == [3]


# What fits


def out_of_memory(m: Measurement, pass_index: int, work: Workload) -> Measurement:
    """Off runs out at 8192 in the last pass, is skipped at 16384; on is skipped at 16384."""
    if work.tokens == 8192 and m.role == "T1" and pass_index == 1:
        return synthetic.failed(m, Status.OOM)
    if work.tokens == 16384:
        return synthetic.failed(m, Status.SKIPPED, "needs about 91.0 GiB of 79.2 GiB")
    return m


def test_the_largest_batch_that_fits_is_told_off_and_on() -> None:
    counts = (4096, 8192, 16384)
    model = built(synthetic.Builder(passes=2, pairs=2, change=out_of_memory).trials(synthetic.cases(counts)))
    (said,) = worth.fits(model)
    assert said == (
        "Memory (streams x2 torch, bf16 · deepseek-v3, EP8, 2 layers · link paced h800-nvlink-ep8): "
        "off fits up to 4096 tokens, on up to 8192 tokens; 8192 fits on only."
    )
    assert said in markdown.page(model)
    told = json.loads(json.dumps(document.document(model)))["fits"]
    assert (told[0]["largest_off_tokens"], told[0]["largest_on_tokens"]) == (4096, 8192)
    assert (told[0]["on"]["fits"], told[0]["on"]["lacks"]) == ([4096, 8192], [16384])


def test_nothing_is_said_of_memory_where_it_sufficed_or_something_else_was_missing() -> None:
    for reason in (None, "experts triton needs a CUDA GPU"):
        change: Change = lambda m, p, w, why=reason: synthetic.failed(m, Status.SKIPPED, why) if why else m  # noqa: E731
        model = built(synthetic.Builder(passes=2, pairs=2, change=change).trials(synthetic.cases((4096, 8192))))
        assert worth.fits(model) == []


def test_what_fits_nowhere_is_said_so() -> None:
    def never(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return synthetic.failed(m, Status.OOM) if m.role == "T1" else m

    model = built(synthetic.Builder(passes=2, pairs=2, change=never).trials(synthetic.cases((4096, 8192))))
    (said,) = worth.fits(model)
    assert said.endswith("off fits nowhere, on up to 8192 tokens; 4096 and 8192 fit on only.")


def test_the_reason_that_is_searched_for_is_the_one_that_a_skip_gives() -> None:
    small = replace(synthetic.H100, memory_bytes=2**30)
    (case,) = synthetic.cases((4096,))
    reason = unsupported_reason(case.workload, case.link, synthetic.variant(), small)
    assert reason is not None
    assert reason.startswith(support.MEMORY_NEED)
