"""Chosen before triton is imported: without a GPU its kernels run in the interpreter. GPU tests are skipped there."""

import os

import pytest


def _gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


os.environ.pop("USE_TBO", None)  # what a developer's shell sets must not decide a test
GPU = _gpu()
if not GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "gpu" in item.keywords and not GPU:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))
