"""Nsight Systems exports: what is missing is said, what is damaged is refused in one line."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.timeline import nsys
from bench.timeline.model import UNKNOWN

SAMPLE = Path(__file__).parents[1] / "data" / "nsight_sample.sqlite"


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    def copy_with(*statements: str) -> Path:
        shutil.copy(SAMPLE, tmp_path / "changed.sqlite")
        with closing(sqlite3.connect(tmp_path / "changed.sqlite")) as db:
            for statement in statements:
                db.execute(statement)
            db.commit()
        return tmp_path / "changed.sqlite"

    return copy_with


def test_several_api_rows_of_one_correlation_do_not_multiply_the_work(changed: Callable[..., Path]) -> None:
    """A runtime call and the driver call inside it share their id; the outer one, which began first, is the launch."""
    twice = changed(
        "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME SELECT start + 1, end - 1, eventClass, globalTid, correlationId,"
        " nameId, returnValue, callchainId FROM CUPTI_ACTIVITY_KIND_RUNTIME"
    )
    one, other = nsys.read(SAMPLE).work, nsys.read(twice).work
    assert one.launch_ns.tolist() == other.launch_ns.tolist()
    assert len(one) == len(other) == 120


def test_without_api_calls_nothing_is_attributed_and_it_is_said(changed: Callable[..., Path]) -> None:
    read = nsys.read(changed("DROP TABLE CUPTI_ACTIVITY_KIND_RUNTIME"))
    assert set(read.work.launch_ns.tolist()) == {UNKNOWN}
    assert any("no launch is known" in doubt for doubt in read.doubts)
    assert len(read.waits) == 0


def test_without_ranges_the_work_is_there_and_it_is_said(changed: Callable[..., Path]) -> None:
    read = nsys.read(changed("DROP TABLE NVTX_EVENTS"))
    assert (len(read.work), len(read.ranges)) == (120, 0)
    assert read.doubts == ["no NVTX range was recorded"]


def test_kernels_alone_are_a_timeline(changed: Callable[..., Path]) -> None:
    assert len(nsys.read(changed("DROP TABLE CUPTI_ACTIVITY_KIND_MEMCPY")).work) == 72


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (("DROP TABLE StringIds",), "no Nsight Systems export"),
        (
            ("DROP TABLE CUPTI_ACTIVITY_KIND_MEMCPY", "DROP TABLE CUPTI_ACTIVITY_KIND_KERNEL"),
            "nothing ran on a GPU",
        ),
        (("ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL RENAME COLUMN streamId TO stream",), "cannot be read as an SQLite"),
    ],
)
def test_what_is_no_export_is_refused(changed: Callable[..., Path], statements: tuple[str, ...], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        nsys.read(changed(*statements))


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "torn.sqlite").write_bytes(SAMPLE.read_bytes()[:50_000])
    with pytest.raises(BenchError, match=r"torn\.sqlite: cannot be read as an SQLite export"):
        nsys.read(tmp_path / "torn.sqlite")
    with pytest.raises(BenchError, match="no such file"):
        nsys.read(tmp_path / "none.sqlite")
