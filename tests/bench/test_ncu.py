"""Nsight Compute: a planted tool, a table as it writes one, and what a report shows of it."""

import os
import re
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
from small_sweep import small_case

from bench import report
from bench.cases import Case, with_companions
from bench.errors import BenchError, Exit
from bench.profiling import drive, ncu
from bench.profiling.kept import TIMELINES, profiles_of
from bench.profiling.kernels import KERNELS, KernelProfile, VariantKernels, kernel_profiles, load, write
from bench.profiling.request import Request
from bench.render import html, kernel_section, markdown
from moe_impl.options import Variant

TABLE = Path(__file__).parents[1] / "data" / "ncu_raw.csv"
CASE = Case(small_case().workload, small_case().link, with_companions(Variant(experts="torch")))
OFF, SPLIT, _ = CASE.variants
VISIBLE = (OFF, SPLIT)


def table() -> str:
    """The sample, whose T1 launches a GEMM and a silu, and a GEMM of either micro-batch by T2s."""
    text = TABLE.read_text().strip()
    gemm = text.splitlines()[2].replace(OFF.label, SPLIT.label)
    return "\n".join([text, gemm.replace("ubatch 1", "ubatch 0").replace("295,232", "195,232"), gemm])


def launches() -> list[ncu.Launch]:
    return ncu.read(table(), VISIBLE)


def profile(folder: str = "case-ncu") -> KernelProfile:
    of_each = [
        VariantKernels(one, tuple(launch.kernel for launch in launches() if launch.variant == one)) for one in VISIBLE
    ]
    return KernelProfile(CASE, "bench profile RUN --case ID --tool ncu", "ncu.ncu-rep", tuple(of_each), folder=folder)


def test_a_launch_is_of_the_innermost_stage_of_its_variants_iteration() -> None:
    found = [(one.variant.role, one.kernel.stage, one.kernel.layer, one.kernel.ubatch) for one in launches()]
    assert found == [("T1", "gemm1", 0, 1), ("T1", "silu_mul", 0, 1), ("T2s", "gemm1", 0, 0), ("T2s", "gemm1", 0, 1)]


def test_a_replay_of_a_graph_is_in_no_stage_and_left_out() -> None:
    assert "iteration 0 graph" in table()
    (graph,) = (v for v in with_companions(Variant(experts="torch", launch="graph")) if v.role == "T1")
    assert ncu.read(table().replace("iteration 0 graph", f"iteration 0 {graph.label}"), (graph,)) == []


def test_numbers_are_si_and_shares_are_fractions() -> None:
    gemm, silu, *_ = (one.kernel for one in launches())
    assert gemm.name == "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_NNT"
    assert gemm.duration_s == pytest.approx(295.232e-6)
    assert gemm.registers_per_thread == 168
    assert (gemm.dram, gemm.tensor, gemm.sm, gemm.occupancy) == pytest.approx((0.2957, 0.9261, 0.9261, 0.1464))
    assert (silu.dram, silu.occupancy) == pytest.approx((0.3870, 0.8777))


@pytest.mark.parametrize("cell", ["", "n/a", "nan", "-nan"])
def test_a_share_that_is_no_number_is_unknown_and_not_zero(cell: str) -> None:
    gemm, *_ = (one.kernel for one in ncu.read(table().replace('"92.61","92.61"', f'"{cell}","92.61"'), VISIBLE))
    assert (gemm.tensor, gemm.sm) == (None, 0.9261)


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("gpu__time_duration.sum", "gpu__time", "no column gpu__time_duration.sum"),
        ("thread Domain:Push/Pop_Range", "another", "no column thread Domain:Push/Pop_Range"),
        ('"ns"', '"furlong"', "gives durations in furlong"),
        ("295,232", "inf", "gpu__time_duration.sum: found 'inf', expected a number"),
        ('"168"', '"many"', "launch__registers_per_thread: found 'many', expected a number"),
        ('"168"', '"168","1"', r"a line of \d+ cells, expected \d+"),
    ],
)
def test_a_table_of_another_form_is_refused_in_one_line(was: str, becomes: str, said: str) -> None:
    with pytest.raises(BenchError, match=said) as ended:
        ncu.read(table().replace(was, becomes), VISIBLE)
    assert (ended.value.code, len(ended.value.problems)) == (Exit.INTERNAL, 1), "not the user's input"


def test_it_sees_what_runs_one_kernel_at_a_time_and_names_it() -> None:
    graph = Variant(experts="torch", launch="graph")
    case = replace(CASE, variants=(*CASE.variants, *with_companions(graph)))
    assert ncu.visible(case).variants == VISIBLE


def fake_ncu(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str = "", code: int = 0, keeps: str = "") -> Path:
    """A tool on PATH: runs what follows its options and leaves a report, or reads one as the sample table."""
    script = folder / "tools" / "ncu"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\n"
        "import os, subprocess, sys\n"
        "if '--import' in sys.argv:\n"
        f"    sys.exit(print('==PROF== reads', {table()!r}, '==WARNING== remarks', sep='\\n'))\n"
        "subprocess.run(sys.argv[sys.argv.index(sys.executable):], check=True)\n"
        f"print({says!r})\n"
        f"kept = {keeps!r} or 'report'\n"
        "path = sys.argv[sys.argv.index('--export') + 1]\n"
        "open(path, 'w').write(' '.join(os.environ.values()) if kept == 'environment' else kept)\n"
        f"sys.exit({code})\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    (folder / "case-ncu").mkdir()
    return folder / "case-ncu"


def profiled(folder: Path) -> KernelProfile:
    asks_once = "import json, sys; assert json.load(sys.stdin)['iterations'] == 1"
    return ncu.profile(Request(ncu.visible(CASE), "ncu", str(folder)), "again", [sys.executable, "-c", asks_once])


def test_a_profile_is_kept_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake_ncu(tmp_path, monkeypatch)
    found = profiled(folder)
    assert [(one.variant, len(one.kernels)) for one in found.variants] == [(OFF, 2), (SPLIT, 2)]
    assert load(folder) == found
    assert {path.name for path in folder.iterdir()} == {"ncu.ncu-rep", KERNELS}


def test_a_report_with_the_environment_in_it_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake_ncu(tmp_path, monkeypatch, keeps="environment")
    monkeypatch.setattr(drive, "allowed", dict)
    found = profiled(folder)
    assert found.raw is None
    assert [path.name for path in folder.iterdir()] == [KERNELS]
    assert "ncu-rep" not in kernel_section.about(found)


@pytest.mark.parametrize("code", [0, 9])
def test_counters_that_may_not_be_read_are_one_line_for_the_administrator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    says = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters"
    folder = fake_ncu(tmp_path, monkeypatch, says, code)
    with pytest.raises(BenchError, match="NVreg_RestrictProfilingToAdminUsers=0") as ended:
        profiled(folder)
    assert (ended.value.code, len(ended.value.problems)) == (Exit.BAD_INPUT, 1)


def test_no_ncu_says_who_knows_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncu.tools, "find_tool", lambda name, inside: None)
    with pytest.raises(BenchError, match="bench doctor"):
        profiled(tmp_path)


def test_it_is_asked_for_compute_stages_at_the_clocks_of_a_sweep() -> None:
    said = " ".join(ncu.options())
    assert "--clock-control none" in said
    (ranges,) = re.findall(r"regex:moe_tbo@(\S+ layer \S+ ubatch \S+)/", said)
    assert re.fullmatch(ranges, "gemm1 layer 0 ubatch 1")
    assert not re.fullmatch(ranges, "dispatch layer 0 ubatch 1"), "it waits for a clock"
    assert not re.fullmatch(ranges, "gemm1 layer 1 ubatch 1"), "one layer stands for all"


def test_launches_of_a_kernel_share_a_line_of_the_table() -> None:
    off, split = kernel_section.tables(profile())
    assert off.title == "T1 off torch: kernels of one layer"
    assert off.headers[:3] == ("stage", "launches", "us each")
    name = "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_NNT"
    assert off.rows[0] == ("gemm1", "1", "295.2", "29.6 %", "92.6 %", "92.6 %", "14.6 %", "168", name)
    assert len(off.rows[1][-1]) == kernel_section.LONGEST_NAME
    assert [row[:3] for row in split.rows] == [("gemm1", "2", "245.2")]


def test_a_run_keeps_it_beside_its_timelines_and_the_report_shows_it(tmp_path: Path) -> None:
    folder = tmp_path / TIMELINES / "case-ncu"
    folder.mkdir(parents=True)
    kept = write(profile(), folder)
    assert kernel_profiles(tmp_path / TIMELINES) == ((kept,), ())
    assert profiles_of(tmp_path) == ((), ()), "it has no timeline, and that is no fault"
    found = report.build(synthetic.StubRun(synthetic.Builder(pairs=2).trials(synthetic.cases((1024,)))))
    model = replace(found, kernel_profiles=(kept,))
    for page in (html.page(model), markdown.page(model)):
        assert "kernels by Nsight Compute" in page
        assert "14.6 %" in page
        assert "timelines/case-ncu" in page


def test_a_damaged_one_is_told_and_costs_no_report(tmp_path: Path) -> None:
    folder = tmp_path / TIMELINES / "case-ncu"
    folder.mkdir(parents=True)
    write(profile(), folder)
    text = (folder / KERNELS).read_text()
    (folder / KERNELS).write_text(text.replace('"version":1', '"version":9').replace('"duration_s"', '"duration_ns"'))
    assert kernel_profiles(tmp_path / TIMELINES)[1] == (
        f"{folder / KERNELS}: found version 9, expected 1; profile the case again",
    )
    (folder / KERNELS).write_text(text[:-20])
    (said,) = kernel_profiles(tmp_path / TIMELINES)[1]
    assert "no readable kernels" in said
