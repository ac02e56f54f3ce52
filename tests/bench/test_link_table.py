"""A table of a user's own measurements: what is fitted to it, and what is wrong with it."""

# ruff: noqa: E501  (a table of messages, one a line)

from pathlib import Path

import pytest

from bench import config
from bench.cases import expand
from bench.errors import BenchError, Exit
from moe_impl.link_fit import Transfer, fit
from moe_impl.options import LinkTime

HEADER = "direction,dtype,bytes,seconds\n"
SWEEP = """\
schema: 1
case: {model: deepseek-v3, ep_size: 8, tokens: 64, precision: bf16, link: LINK}
variants:
  - {engine: streams, split_factor: 2}
"""
SIZES = (2**16, 2**20, 2**24, 2**28)


def rows(direction: str, alpha_s: float, bytes_per_s: float, dtype: str = "bf16", noise: float = 0.0) -> str:
    """Four transfers of a true link, every other one late by a share of ``noise``."""
    seconds = [(alpha_s + size / bytes_per_s) * (1 + noise * (i % 2)) for i, size in enumerate(SIZES)]
    return "".join(f"{direction},{dtype},{size},{taken!r}\n" for size, taken in zip(SIZES, seconds, strict=True))


def load(folder: Path, table: str, link: str = "{table: times.csv}") -> config.SweepConfig:
    (folder / "times.csv").write_text(table)
    (folder / "sweep.yaml").write_text(SWEEP.replace("LINK", link))
    return config.load(folder / "sweep.yaml")


EXACT = HEADER + rows("dispatch", 15e-6, 150e9) + rows("combine", 20e-6, 100e9)


def test_alpha_and_bandwidth_are_fitted_per_direction_and_dtype(tmp_path: Path) -> None:
    [link] = load(tmp_path, EXACT + "\n" + rows("dispatch", 10e-6, 80e9, "fp8")).case.link
    found = {(time.direction, time.dtype): (time.alpha_s, time.bandwidth_bytes_per_s) for time in link.times}
    assert found == {
        ("dispatch", "bf16"): pytest.approx((15e-6, 150e9)),
        ("dispatch", "fp8"): pytest.approx((10e-6, 80e9)),
        ("combine", "bf16"): pytest.approx((20e-6, 100e9)),
    }
    assert (link.transport, link.comm_sms, link.copies, link.name) == ("paced", 20, "rank", "times-20sm")
    assert link.time("dispatch", "fp8").alpha_s == pytest.approx(10e-6)


def test_a_table_says_what_it_occupies_and_counts(tmp_path: Path) -> None:
    [link] = load(tmp_path, EXACT, "[local, {table: {file: times.csv, comm_sms: 7, copies: node}}]").case.link[1:]
    assert (link.comm_sms, link.copies, link.name) == (7, "node", "times-7sm-node")


def test_the_largest_residual_is_told_on_every_number(tmp_path: Path) -> None:
    noisy = HEADER + rows("dispatch", 15e-6, 150e9, noise=0.1) + rows("combine", 20e-6, 100e9)
    [link] = load(tmp_path, noisy).case.link
    _, residual = fit(
        [
            Transfer("dispatch", "bf16", size, (15e-6 + size / 150e9) * (1 + 0.1 * (i % 2)))
            for i, size in enumerate(SIZES)
        ]
    )
    assert 0.02 < residual < 0.1
    assert link.note == f"link fitted to times.csv (8 transfers), largest residual {100 * residual:.2f} %"
    assert link.source == link.note


def test_the_resolved_config_holds_the_numbers_and_ids_depend_on_them_alone(tmp_path: Path) -> None:
    sweep = load(tmp_path, EXACT + rows("combine", 10e-6, 80e9, "fp8"))
    text = config.dump_resolved(sweep)
    assert "table" not in text.replace("link fitted", "")
    again = config.parse(text, "config.resolved.yaml")
    assert again == sweep
    (tmp_path / "elsewhere").mkdir()
    moved = load(tmp_path / "elsewhere", EXACT + rows("combine", 10e-6, 80e9, "fp8"))
    assert [case.case_id for case in expand(moved)] == [case.case_id for case in expand(again)]
    slower = load(tmp_path, EXACT + rows("combine", 10e-6, 79e9, "fp8"))
    assert [case.case_id for case in expand(slower)] != [case.case_id for case in expand(again)]


def problems_of(folder: Path, table: str) -> list[str]:
    with pytest.raises(BenchError) as refused:
        load(folder, table)
    assert refused.value.code == Exit.BAD_INPUT
    return [problem.replace(f"{folder}/", "") for problem in refused.value.problems]


COMBINE = rows("combine", 20e-6, 100e9)
MISTAKES = [
    ("", ["times.csv:1: is empty, expected the header direction,dtype,bytes,seconds"]),
    ("a,b\n", ["times.csv:1: found a,b, expected the header direction,dtype,bytes,seconds"]),
    (EXACT + "dispatch,bf16,1\n", ["times.csv:10: found 3 values, expected direction,dtype,bytes,seconds"]),
    (EXACT + "sideways,bf16,1,1\n", ["times.csv:10: direction: found sideways, allowed: dispatch, combine"]),
    (EXACT + "dispatch,,1,1\n", ["times.csv:10: dtype: found nothing, allowed: bf16, fp8, nvfp4"]),
    (EXACT + "dispatch,bf61,1,1\n", ["times.csv:10: dtype: found bf61, did you mean bf16? allowed: bf16, fp8, nvfp4"]),
    (EXACT + "dispatch,bf16,1.5,1\n", ["times.csv:10: bytes: found 1.5, expected a whole number >= 1"]),
    (EXACT + "dispatch,bf16,0,1\n", ["times.csv:10: bytes: found 0, expected a whole number >= 1"]),
    (EXACT + "dispatch,bf16,1,-1\n", ["times.csv:10: seconds: found -1, expected a number above 0, such as 120e-6"]),
    (EXACT + "dispatch,bf16,1,nan\n", ["times.csv:10: seconds: found nan, expected a number above 0, such as 120e-6"]),
    (EXACT + "dispatch,bf16,1,15 us\n", ["times.csv:10: seconds: found 15 us, expected a number above 0, such as 120e-6"]),
    (EXACT + '"dispatch,bf16,1,1\n', ["times.csv:10: no valid CSV: unexpected end of data"]),
    (HEADER + COMBINE, ["times.csv:1: has no dispatch transfers"]),
    (HEADER + COMBINE + "dispatch,bf16,8,1\ndispatch,bf16,8,2\n", ["times.csv:6: dispatch of bf16 rows: needs at least 2 distinct sizes"]),
    (HEADER + COMBINE + "dispatch,bf16,8,2\ndispatch,bf16,9000,1\n", ["times.csv:6: dispatch of bf16 rows: seconds do not grow with bytes"]),
    (HEADER + "x,bf16,1,1\n\ndispatch,bf16,1,x\n", ["times.csv:2: direction: found x, allowed: dispatch, combine", "times.csv:4: seconds: found x, expected a number above 0, such as 120e-6"]),
]  # fmt: skip


@pytest.mark.parametrize(("table", "messages"), MISTAKES, ids=[messages[0][:70] for _, messages in MISTAKES])
def test_a_mistake_in_a_table_is_one_line_with_its_place(tmp_path: Path, table: str, messages: list[str]) -> None:
    assert problems_of(tmp_path, table) == messages


def test_a_missing_table_is_told_where_it_is_named_with_the_one_beside_it(tmp_path: Path) -> None:
    with pytest.raises(BenchError) as refused:
        load(tmp_path, EXACT, "{table: tims.csv}")
    [problem] = refused.value.problems
    assert problem.startswith(f"{tmp_path}/sweep.yaml:2:")
    assert f"case.link.table: {tmp_path}/tims.csv: no such file, did you mean {tmp_path}/times.csv?" in problem


def test_an_unprintable_file_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="expected the name of a CSV file"):
        load(tmp_path, EXACT, '{table: "a\\0b.csv"}')


def transfers(*points: tuple[int, float]) -> list[Transfer]:
    return [Transfer("combine", "fp8", num_bytes, seconds) for num_bytes, seconds in points]


def test_a_fit_whose_alpha_would_be_negative_has_none() -> None:
    time, residual = fit(transfers((1000, 1e-3), (2000, 3e-3)))
    # s minimises (1000 s / 1e-3 - 1)^2 + (2000 s / 3e-3 - 1)^2
    slope_s = (1e6 + 2e6 / 3) / (1e12 + 4e12 / 9)
    assert time == LinkTime("combine", 0.0, pytest.approx(1 / slope_s), "fp8")
    assert residual == pytest.approx(max(abs(1e6 * slope_s - 1), abs(2e6 / 3 * slope_s - 1)))


def test_small_transfers_count_as_much_as_large_ones() -> None:
    """A tenth too much at both ends: by absolute errors alpha would follow the large transfer and be far off."""
    time, _ = fit(transfers((1, 1.1e-5), (10**6, 1.0e-5 + 1e-3), (10**9, 1.1)))
    assert time.alpha_s == pytest.approx(1.05e-5, rel=0.1)
