from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def uninitialised_memory_is_nan() -> Iterator[None]:
    """torch.empty and its kin give NaN (the largest integer): what is undefined and read after all shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
