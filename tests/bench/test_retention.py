"""Bytes that stay behind are named by the line that allocated them."""

from typing import Any

from bench.measure.retention import live_blocks, new_blocks, said, site


def frame(filename: str, line: int = 1, name: str = "f") -> dict[str, Any]:
    return {"filename": filename, "line": line, "name": name}


def snapshot(*blocks: tuple[int, int, str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Blocks as (address, bytes, state, frames)."""
    return {
        "segments": [
            {"blocks": [{"address": a, "size": n, "state": state, "frames": frames}]} for a, n, state, frames in blocks
        ]
    }


def test_the_site_is_the_innermost_frame_of_someone_who_is_not_torch() -> None:
    frames = [
        frame("/x/site-packages/torch/_tensor.py"),
        frame("??"),
        frame("/src/moe_impl/layer.py", 88, "_row_buffer"),
        frame("/src/moe_impl/layer.py", 120, "_reduce"),
    ]
    assert site(frames) == "layer.py:88 _row_buffer"
    assert site([frame("/x/triton/runtime/jit.py")]) == "unknown"
    assert site([]) == "unknown"


def test_only_allocated_blocks_that_are_new_count_and_add_up_by_site() -> None:
    here, there = [frame("/src/a.py", 3)], [frame("/src/b.py", 9)]
    before = snapshot((0, 512, "active_allocated", here), (4096, 1024, "inactive", []))
    after = snapshot(
        (0, 512, "active_allocated", here),
        (4096, 1024, "active_allocated", there),
        (8192, 2048, "active_allocated", there),
        (16384, 64, "active_pending_free", here),
    )
    assert live_blocks(before) == {0: (512, "a.py:3 f")}
    assert new_blocks(before, after) == {"b.py:9 f": 3072}


def test_a_block_that_was_freed_and_allocated_again_by_another_line_is_new() -> None:
    before = snapshot((0, 512, "active_allocated", [frame("/src/a.py", 3)]))
    after = snapshot((0, 512, "active_allocated", [frame("/src/a.py", 4)]))
    assert new_blocks(before, after) == {"a.py:4 f": 512}


def test_a_row_names_the_lines_that_keep_most() -> None:
    assert said(700, {"a.py:1 f": 100, "b.py:2 g": 400, "c.py:3 h": 50, "d.py:4 i": 150}) == (
        "retains 700 bytes after a step, allocated at b.py:2 g (400 bytes), d.py:4 i (150 bytes), a.py:1 f (100 bytes)"
    )
    assert said(5, {}) == "retains 5 bytes after a step, allocated at unknown"
