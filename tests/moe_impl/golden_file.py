"""Reads tests/data/nvfp4_golden.npz (see tests/data/README.md)."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = dict(np.load(Path(__file__).parents[1] / "data" / "nvfp4_golden.npz", allow_pickle=False))
META = json.loads(str(GOLDEN["__meta__"]))


def tensor(key: str) -> Tensor:
    """An array as it is stored; 0-d stays 0-d."""
    return torch.from_numpy(np.array(GOLDEN[key]))


def floats(key: str) -> Tensor:
    """fp32 bit patterns as values."""
    return tensor(key).view(torch.float32)


def e4m3(key: str) -> Tensor:
    return tensor(key).view(torch.float8_e4m3fn)


def quant_input(case: str) -> Tensor:
    """x [M, K] in the case's own dtype."""
    return floats(f"{case}/x_bits").to(getattr(torch, str(GOLDEN[f"{case}/x_dtype"])))
