"""What tests of kernels in Triton's interpreter share."""

import os
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

WHERE = pytest.mark.skipif(
    find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs triton, and its interpreter, which conftest.py chooses where there is no GPU",
)


def bf16_steps_apart(found: Tensor, expected: Tensor) -> int:
    """Most bf16 numbers between two tensors' elements; a NaN is further away than any number.

    The interpreter truncates where a GPU rounds fp32 to bf16: 1 is as close as it gets.
    """

    def place(values: Tensor) -> Tensor:
        bits = values.view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    if found.isnan().any():
        return 1 << 16
    return int((place(found) - place(expected)).abs().max())
