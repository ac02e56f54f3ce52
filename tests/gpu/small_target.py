"""Layers that a GPU runs in about a millisecond, built as a sweep builds them, and a link as slow as their compute."""

import torch

from bench.cases import Case
from bench.targets import Target, Targets
from moe_impl.options import Link, LinkTime, Precision, Workload
from moe_impl.shapes import ModelShape, Router

MODEL = ModelShape(2048, 1024, 64, 8, Router("sigmoid", True, 8, 4, True, 2.5))
SLOW = Link("paced", 16, (LinkTime("dispatch", 10e-6, 60e9), LinkTime("combine", 10e-6, 60e9)), name="slow")


def small_target(precision: Precision, link: Link, tokens: int, model: ModelShape = MODEL) -> Target:
    """Two layers on a rank of 8."""
    workload = Workload(model, ep_size=8, layers=2, tokens=tokens, precision=precision)
    return Targets(torch.device("cuda")).build(Case(workload, link, ()))


def ignore(position: int) -> None:
    """Progress is a supervisor's affair."""
