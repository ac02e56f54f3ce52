"""tools/layer_cost.py on a CPU: that it runs the stages it names, on what each finds; times mean nothing here."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_impl.experts.base import ReadyExperts, backend
from moe_impl.inputs import draw_inputs
from moe_impl.layer import MoeStages
from moe_impl.options import Link, Precision, Workload
from moe_impl.shapes import ModelShape
from moe_impl.stages import Stage
from moe_impl.transport.base import transport
from moe_impl.weights import draw_layer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def layer_cost() -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).parents[1] / "tools" / "layer_cost.py"))


@pytest.mark.parametrize("precision", ["nvfp4-w4a16", "nvfp4"])
def test_each_stage_can_be_issued_again_and_again(layer_cost: dict[str, Any], precision: Precision) -> None:
    workload = Workload(ModelShape(64, 64, 8, 3), 4, 1, 40, precision, routing="uniform")
    experts = backend("torch", precision, 1.5)
    ready = ReadyExperts(experts, [experts.prepare(draw_layer(workload, 0, CPU))])
    inputs = draw_inputs(workload, CPU)
    issues = layer_cost["issues"](MoeStages(workload, inputs, ready, transport(Link("local"), workload, CPU)), workload)
    assert list(issues) == layer_cost["passed_stages"](workload)
    assert (Stage.QUANTIZE in issues) == (precision == "nvfp4")
    for _ in range(2):
        for issue in reversed(issues.values()):
            issue()


def test_a_row_shows_what_the_layer_adds_to_its_gemms(layer_cost: dict[str, Any]) -> None:
    workload = Workload(ModelShape(64, 64, 8, 3), 4, 1, 40, "nvfp4-w4a16", routing="uniform")
    stages = {"permute": 2e-6, "gemm1": 60e-6, "silu_mul": 3e-6, "gemm2": 40e-6, "reduce": 5e-6, "merge": 9e-6}
    cells = layer_cost["line"](workload, {**stages, "gemms": 99e-6, "layer": 107.91e-6}, 1e12).split(" | ")
    assert cells[0].strip() == "120", "pairs"
    assert cells[1].strip() == cells[2].strip() == "-", "no route was timed, and nothing is quantized"
    assert [cell.strip() for cell in cells[-4:]] == ["99.0", "107.9", "9.0 %", "10.1 %"]
    read_and_written = 120 * (2 * 128 + 128)  # gate and up, h
    micros, rate, share = cells[5].split()
    assert (micros, rate) == ("3.0", f"{read_and_written / 3e-6 / 1e9:.0f}")
    assert share == f"{100 * read_and_written / 3e-6 / 1e12:.0f}"
