"""A run's link as a table: what was planted in its stage times comes out, and the table is one that a sweep reads."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from synthetic import Builder, Noise, Truth, config_of, variant, with_t1_and_t2s, workload

from bench import config, transfers
from bench.cases import Case
from bench.commands.calibrate import command
from bench.config.dump import dump_resolved
from bench.errors import BenchError
from bench.results import Measurement, Traffic, Trial
from bench.running.run_writer import create
from moe_impl.links import COLLECTIVE, HOST_LINK, PACED_PRESETS
from moe_impl.options import Link, LinkTime, Variant, Workload

PLANTED = Link("paced", 20, (LinkTime("dispatch", 40e-6, 400e9), LinkTime("combine", 15e-6, 580e9)))
ROWS_A_TOKEN = 5.25


@dataclass(frozen=True)
class TrueLink(Truth):
    """A link that really travels and takes what was planted."""

    def op_s(self, work: Workload, link: Link, one: Variant) -> dict[str, list[list[float]]]:
        return super().op_s(work, PLANTED, one)


def trials(link: Link = COLLECTIVE, tokens: tuple[int, ...] = (512, 2048, 8192), **changes: object) -> list[Trial]:
    cases = [Case(workload(count), link, with_t1_and_t2s(variant(split_factor=2))) for count in tokens]
    made = Builder(TrueLink(), Noise(0, 0), passes=2, instrumented=1.0, **changes).trials(cases)  # type: ignore[arg-type]
    return [replace(t, traffic=Traffic(ROWS_A_TOKEN * t.workload.tokens, 1)) for t in made]


def test_alpha_and_bandwidth_come_out_as_planted_from_both_serial_runs() -> None:
    found = transfers.transfers(trials())
    fitted = {t.direction: (t.alpha_s, t.bandwidth_bytes_per_s) for t, _ in transfers.fitted(found)}
    assert fitted == {"dispatch": pytest.approx((40e-6, 400e9)), "combine": pytest.approx((15e-6, 580e9))}
    sizes = [t.num_bytes for t in found.transfers if t.direction == "combine"]
    assert sizes == [round(ROWS_A_TOKEN * tokens) * 2 * 7168 for tokens in (256, 512, 1024, 2048, 4096, 8192)]


def test_perturbed_passes_are_left_out_and_counted() -> None:
    def perturb(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        bad = m.role == "T2s" and pass_index == 0 and work.tokens == 512 and m.stages is not None
        assert m.stages is not None
        slow = replace(m.stages, op_s={s: [[9.0] * len(u) for u in layers] for s, layers in m.stages.op_s.items()})
        return replace(m, flags=("stage pass perturbed: its span is 1.2x the timed median",), stages=slow) if bad else m

    found = transfers.transfers(trials(change=perturb))
    assert found.left_out == 1
    assert max(t.seconds for t in found.transfers) < 1


def test_modelled_links_and_mixed_ones_are_refused() -> None:
    with pytest.raises(BenchError, match="no stage times of a measured link"):
        transfers.transfers(trials(PACED_PRESETS["h800-nvlink-ep8"]))
    with pytest.raises(BenchError, match="a table is of one link, found collective of 8 ranks, host_link of 8 ranks"):
        transfers.transfers([*trials(), *trials(HOST_LINK)])
    one_size = transfers.transfers([replace(t, measurements=t.measurements[:1]) for t in trials(tokens=(512,))])
    with pytest.raises(BenchError, match="of bf16 rows: needs at least 2 distinct sizes"):
        transfers.fitted(one_size)


def test_the_table_is_read_by_a_sweep_file(tmp_path: Path) -> None:
    stored = trials()
    with create(tmp_path / "run", Path("sweep.yaml")) as run:
        run.write_config(dump_resolved(config_of(stored)))
        run.write_environment({})
        for trial in stored:
            run.append(trial)
    done = CliRunner().invoke(command, [str(tmp_path / "run"), "--out", str(tmp_path / "times.csv")])
    assert done.exit_code == 0, done.output
    assert "combine of bf16 rows: alpha 15 us, 580 GB/s" in done.output
    (tmp_path / "sweep.yaml").write_text(
        "schema: 1\ncase: {model: deepseek-v3, ep_size: 8, tokens: 64, precision: bf16, "
        "link: {table: {file: times.csv, comm_sms: 16}}}\nvariants: [{engine: streams, split_factor: 2}]\n"
    )
    [link] = config.load(tmp_path / "sweep.yaml").case.link
    assert link.comm_sms == 16
    assert link.time("dispatch", "bf16").bandwidth_bytes_per_s == pytest.approx(400e9, rel=1e-6)
