"""`bench export`: one row a case, variant and pass, in CSV and Parquet."""

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import synthetic

from bench import export
from bench.commands.export import FORMATS
from bench.results import Measurement, Status, Trial
from moe_impl.options import SkewedRouting, Workload

CONFIG = """\
schema: 1
case: {model: deepseek-v3, ep_size: 8, layers: 2, tokens: [256, 4096], precision: bf16, link: {paced: h800-nvlink-ep8}}
variants: [{engine: streams, split_factor: 2}]
"""
Run = Callable[..., tuple[int, str, str]]


def hang_once(m: Measurement, pass_index: int, work: Workload) -> Measurement:
    if (m.role, pass_index, work.tokens) == ("T2o", 1, 4096):
        return synthetic.failed(m, Status.HANG, 'no sign\nof "progress", at all')
    return m


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    return synthetic.Builder(passes=2, pairs=3, change=hang_once).trials(synthetic.cases((256, 4096)))


@pytest.fixture
def run(tmp_path: Path, trials: list[Trial]) -> Path:
    return synthetic.write_run(tmp_path / "run", trials, CONFIG)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_folder_of_out_is_made(command: Run, run: Path) -> None:
    path = run / "for" / "others" / "all.csv"
    assert command("export", run, "--out", path) == (0, f"{path}\n", "")
    assert rows(path)


def test_csv_has_a_row_for_each_case_variant_and_pass(command: Run, run: Path, trials: list[Trial]) -> None:
    code, out, err = command("export", run)
    assert (code, out, err) == (0, f"{run / 'results.csv'}\n", "")
    found = rows(run / "results.csv")
    stored = [(trial, m) for trial in trials for m in trial.measurements]
    assert len(found) == len(stored) == 12
    for row, (trial, m) in zip(found, stored, strict=True):
        assert (row["case_id"], row["variant_id"], row["pass_index"]) == (
            trial.case_id,
            m.variant_id,
            str(trial.pass_index),
        )
        assert row["workload_tokens"] == str(trial.workload.tokens)
        assert row["variant_split_factor"] == str(m.variant.split_factor)
        if m.samples_s:
            assert float(row["median_s"]) == median(m.samples_s)
            assert row["num_samples"] == "6"
    first = found[0]
    assert (first["workload_model_name"], first["workload_model_hidden_size"]) == ("deepseek-v3", "7168")
    assert (first["link_transport"], first["machine_sm_count"]) == ("paced", "132")
    gemm1 = trials[0].measurements[0].stages.op_s["gemm1"]
    assert float(first["instrumented_gemm1_s"]) == pytest.approx(sum(map(sum, gemm1)))
    assert first["instrumented_attention_s"] == ""


def test_a_speedup_is_that_of_the_pass_over_its_t1(trials: list[Trial]) -> None:
    table = export.frame(trials)
    assert table.loc[table.role == "T1", "speedup"].isna().all()
    truth = synthetic.Truth()
    for trial, row in zip(trials, table[table.role == "T2o"].itertuples(), strict=True):
        if row.status == "hang":
            continue
        off, _, on = (truth.span_s(trial.workload, trial.link, m.variant) for m in trial.measurements)
        assert row.speedup == pytest.approx(off / on, rel=5e-3)


def test_what_is_not_known_is_empty_and_never_zero(command: Run, run: Path) -> None:
    command("export", run)
    (failed,) = (row for row in rows(run / "results.csv") if row["status"] != "ok")
    assert (failed["status"], failed["reason"]) == ("hang", 'no sign\nof "progress", at all')
    for name in ("median_s", "speedup", "relative_error", "peak_bytes", "instrumented_span_s", "check_passed"):
        assert failed[name] == "", name


def test_types_do_not_depend_on_the_values(trials: list[Trial]) -> None:
    bare = [replace(trial, measurements=tuple(synthetic.failed(m) for m in trial.measurements)) for trial in trials[:1]]
    full, empty = export.frame(trials), export.frame(bare)
    assert list(full.dtypes) == list(empty.dtypes)
    kinds = {name: str(full.dtypes[name]) for name in ("median_s", "peak_bytes", "status", "check_passed")}
    assert kinds == {"median_s": "float64", "peak_bytes": "Int64", "status": "string", "check_passed": "boolean"}
    assert str(full.dtypes["variant_max_tokens_per_rank"]) == "Int64"


def test_a_nested_choice_is_one_word(trials: list[Trial]) -> None:
    skewed = [replace(t, workload=replace(t.workload, routing=SkewedRouting("zipf", 1.0))) for t in trials[:1]]
    assert set(export.frame(skewed).workload_routing) == {"zipf-1-hottest"}
    assert set(export.frame(skewed).variant_split) == {"equal"}


def test_names_are_distinct_and_say_their_unit() -> None:
    names = [column.name for column in export.COLUMNS]
    assert len(names) == len(set(names))
    times = [column.name for column in export.COLUMNS if column.name.startswith("instrumented_")]
    assert times
    assert all(name.endswith("_s") for name in times)


def test_a_filter_and_a_file_of_ones_own(command: Run, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.csv"
    assert command("export", run, "--out", out, "--filter", "tokens=256") == (0, f"{out}\n", "")
    assert {row["workload_tokens"] for row in rows(out)} == {"256"}


def test_parquet_without_pyarrow_exits_2_in_one_line(command: Run, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, out, err = command("export", run, "--format", "parquet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: --format parquet needs pyarrow")
    assert "moe-tbo-bench[export]" in err
    assert not (run / "results.parquet").exists()


def test_parquet_holds_what_the_table_holds(command: Run, run: Path, trials: list[Trial]) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    code, out, _ = command("export", run, "--format", "parquet")
    assert (code, out) == (0, f"{run / 'results.parquet'}\n")
    read = pd.read_parquet(run / "results.parquet")
    expected = export.frame(trials)
    assert list(read.columns) == list(expected.columns)
    assert read["median_s"].equals(expected["median_s"])
    assert read["peak_bytes"].dropna().tolist() == expected["peak_bytes"].dropna().tolist()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "json"], "'json' is not one of 'csv', 'parquet'"),
        (["--out", "/dev/null/all.csv"], "/dev/null/all.csv: cannot write the export"),
        (["--filter", "tokens=3"], "tokens=3 matches nothing"),
    ],
)
def test_bad_input_exits_2_in_one_line(command: Run, run: Path, arguments: list[str], said: str) -> None:
    code, out, err = command("export", run, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_the_command_offers_the_formats_that_there_are() -> None:
    assert FORMATS == export.FORMATS
