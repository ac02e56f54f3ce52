"""Random tensors that are the same in every run."""

import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    """fp32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
