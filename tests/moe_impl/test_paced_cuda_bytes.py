"""What a paced transfer on a GPU is told to take: the payload's own bytes and time, not its buffer's."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from moe_impl import rows
from moe_impl.options import Link, LinkTime, Precision, Workload
from moe_impl.payload import row_bytes, stored_row_bytes
from moe_impl.shapes import ModelShape

H = 128
WORK = Workload(ModelShape(H, 64, 4, 2), ep_size=2, layers=1, tokens=4, precision="bf16")
TIMES = (
    LinkTime("dispatch", 1e-6, 1e9, "bf16"),
    LinkTime("dispatch", 1e-6, 2e9, "fp8"),
    LinkTime("dispatch", 1e-6, 3e9, "nvfp4"),
    LinkTime("combine", 1e-6, 4e9),
)


@pytest.mark.parametrize("precision", ["bf16", "fp8", "nvfp4"])
def test_dispatch_is_charged_its_payload_and_combine_bf16(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moe_impl.transport import cuda_rows

    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(cuda_rows, "paced_move", lambda *arguments: told.append(arguments))
    monkeypatch.setattr(cuda_rows, "new_state", lambda device: torch.zeros(4))
    work = replace(WORK, precision=precision, dispatch_dtype=None)  # type: ignore[arg-type]
    link = cuda_rows.PacedCuda(Link("paced", 4, TIMES), work, torch.device("cpu"))
    sent = rows.plan_rows(torch.tensor([[0, 3]] * 4, dtype=torch.int32), torch.ones(4, 2), 4, 2)
    width = stored_row_bytes(work.dispatch_dtype, H)
    payload, received = (torch.zeros(n, width, dtype=torch.uint8) for n in (4, sent.capacity))
    partial = torch.zeros(sent.capacity, H, dtype=torch.bfloat16)
    link.dispatch(payload, sent, received)
    link.combine(partial, sent, partial.clone())
    assert [arguments[-1] for arguments in told] == [row_bytes(work.dispatch_dtype, H), 2 * H]
    rates = {"bf16": 1e9, "fp8": 2e9, "nvfp4": 3e9}
    times = [next(a for a in arguments if isinstance(a, LinkTime)) for arguments in told]
    assert [time.bandwidth_bytes_per_s for time in times] == [rates[precision], 4e9]
