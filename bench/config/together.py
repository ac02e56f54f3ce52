"""Values that can run on no machine because of one another: each is legal alone."""

from collections.abc import Iterator
from typing import Any

from bench.config.nodes import Node, Problems
from bench.config.nowhere import refuse_what_runs_nowhere
from bench.config.spec import CaseAxes, VariantSpec
from bench.settings import MeasureSettings
from moe_impl.attention_shapes import ATTENTION_SHAPES


def refuse_impossible(root: Node, values: dict[str, Any], problems: Problems) -> None:
    """Note what no machine could run or judge; ``values`` are those of ``root``, each read without a problem.

    A value that goes with another one of the same list is fine: a product's points are skipped one by one.
    """
    case = _child(root, "case")
    _ep_sizes(case, values["case"], problems)
    _attention(case, values["case"], problems)
    _ranks(case, values["case"], problems)
    if "variants" in values:
        _experts(_child(root, "variants"), values["case"], problems)
    if "measure" in values:
        _thresholds(_child(root, "measure"), values["measure"], problems)
        _stopping(_child(root, "measure"), problems)
    if not problems:
        refuse_what_runs_nowhere(root, values["case"], values.get("variants", (VariantSpec(()),)), problems)


def _ep_sizes(case: Node, axes: CaseAxes, problems: Problems) -> None:
    counts = sorted({model.num_experts for model in axes.model})
    for item in _items(_child(case, "ep_size")):
        if all(number % int(str(item.value)) for number in counts):
            experts = " or ".join(map(str, counts))
            problems.add(item, "case.ep_size", f"found {item.shown}, expected a divisor of {experts} experts")


def _attention(case: Node, axes: CaseAxes, problems: Problems) -> None:
    if axes.attention == (None,) or any(model.name in ATTENTION_SHAPES for model in axes.model):
        return
    allowed = ", ".join(ATTENTION_SHAPES)
    text = f"needs a model whose attention is known, found {axes.model[0].name}, allowed: {allowed}"
    problems.add(_child(case, "attention"), "case.attention", text)


def _ranks(case: Node, axes: CaseAxes, problems: Problems) -> None:
    """A skewed routing's rank that no listed ep_size has."""
    assert isinstance(case.value, dict)
    most = max(axes.ep_size)
    for item in _items(case.value["routing"]) if "routing" in case.value else ():
        rank = item.value["rank"] if isinstance(item.value, dict) and "rank" in item.value else None
        if rank is not None and isinstance(rank.value, int) and rank.value >= most:
            text = f"found {rank.shown}, expected at most {most - 1}: ep_size {most} has ranks 0..{most - 1}"
            problems.add(rank, "case.routing.rank", text)


def _experts(variants: Node, axes: CaseAxes, problems: Problems) -> None:
    if set(axes.precision) != {"bf16"}:
        return
    assert isinstance(variants.value, list)
    for index, entry in enumerate(variants.value):
        assert isinstance(entry.value, dict)
        for item in _items(entry.value["experts"]) if "experts" in entry.value else ():
            if item.value in ("triton", "humming"):
                why = "which reads NVFP4 weights, and case.precision is bf16 alone"
                text = f"found {item.value}, {why}, allowed: torch, auto"
                problems.add(item, f"variants[{index}].experts", text)


def _thresholds(measure: Node, settings: MeasureSettings, problems: Problems) -> None:
    """Beyond and within must leave no speed-up that is both FASTER and SAME."""
    if settings.decide_beyond <= settings.same_within:
        return
    assert isinstance(measure.value, dict)
    key = "decide_beyond" if "decide_beyond" in measure.value else "same_within"
    problems.add(
        measure.value[key],
        f"measure.{key}",
        f"decide_beyond {settings.decide_beyond:.2%} is above same_within {settings.same_within:.2%}, "
        "expected at most that",
    )


def _stopping(measure: Node, problems: Problems) -> None:
    """Either a fixed number of rounds, or a rule with its limits."""
    assert isinstance(measure.value, dict)
    given = measure.value
    if "stop_when" in given and "rounds" in given:
        text = f"found {given['stop_when'].shown} beside rounds {given['rounds'].shown}, expected one of the two"
        problems.add(given["stop_when"], "measure.stop_when", text)
    if "samples" in given and "stop_when" not in given:
        text = "found without stop_when, which chooses between its limits, expected both or neither"
        problems.add(given["samples"], "measure.samples", text)


def _child(node: Node, key: str) -> Node:
    assert isinstance(node.value, dict)
    return node.value[key]


def _items(node: Node) -> Iterator[Node]:
    if isinstance(node.value, list):
        yield from node.value
    else:
        yield node
