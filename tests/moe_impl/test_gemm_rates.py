"""The benchmark of the grouped GEMMs: what it draws, and that both kernels are given the same weights."""

import runpy
from pathlib import Path
from typing import Any

import interpreted
import pytest
import torch

from moe_impl.shapes import PRESETS

pytestmark = interpreted.WHERE
TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(TOOLS))
    return runpy.run_path(str(TOOLS / "gemm_rates.py"))


def test_the_points_are_those_of_the_presets(tool: dict[str, Any]) -> None:
    for shard in tool["SHARDS"]:
        name, ep_size = shard.split(":")
        assert PRESETS[name].num_experts % int(ep_size) == 0


@pytest.mark.parametrize(("shard", "rows"), [("deepseek-v3", 64), ("qwen3-30b-a3b", 2048)])
def test_counts_add_up_and_a_skew_fills_some_experts_more(tool: dict[str, Any], shard: str, rows: int) -> None:
    even, skewed = (tool["drawn_counts"](PRESETS[shard], 8, rows, skew) for skew in (0.0, 1.0))
    assert (int(even.sum()), int(skewed.sum())) == (rows, rows)
    assert len(even) == PRESETS[shard].num_experts // 8
    assert skewed.max() > even.max()


def test_room_changes_no_row(tool: dict[str, Any]) -> None:
    drawn = []
    for room in (1, 8):
        torch.manual_seed(0)
        drawn.append(tool["drawn_rows"](5, 64, room, torch.device("cpu")))
    assert [x.shape for x in drawn] == [(5, 64), (40, 64)]
    assert torch.equal(drawn[1][:5], drawn[0])


def test_both_kernels_get_the_same_weights(tool: dict[str, Any]) -> None:
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm, tile_for

    gemm = tool["Projection"].drawn(2, 64, 128, torch.Generator().manual_seed(0))
    identity = torch.eye(128).bfloat16().repeat(2, 1)
    found = nvfp4_grouped_gemm(identity, gemm.packed, torch.tensor([128, 256]).int(), tile_for(2))
    assert torch.equal(found.view(2, 128, 64).transpose(1, 2), gemm.dense)
    assert tool["difference"](found, found) == 0
    assert gemm.flops(10) == 2 * 10 * 64 * 128
    assert gemm.bytes(1, 10) == 64 * 128 * 9 // 16 + 2 * 10 * (64 + 128)


@pytest.mark.parametrize(("wide", "load", "name"), [(False, 2, "16x64x256"), (True, 512, "wide 128x256x64")])
def test_the_table_says_whose_tile_ran(
    tool: dict[str, Any], monkeypatch: pytest.MonkeyPatch, wide: bool, load: int, name: str
) -> None:
    gemm = tool["Projection"].drawn(1, 64, 128, torch.Generator().manual_seed(0))
    monkeypatch.setitem(tool["tile_name"].__globals__, "takes_wide", lambda *arguments: wide)
    assert tool["tile_name"](torch.zeros(1, 128), gemm.packed, load) == name
