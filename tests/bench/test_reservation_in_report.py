"""What `reserve_sms` costs stands in the report of variants that have it, and what decided stands in their names."""

from dataclasses import replace

import synthetic

from bench import report
from bench.render import document, tables
from bench.report_model import ReportModel, Section
from bench.results import Measurement
from moe_impl.options import Workload

PLAIN = synthetic.variant()


def slower(m: Measurement, pass_index: int, work: Workload) -> Measurement:
    return synthetic.rescaled(m, 1.1) if m.role == "T2s" and m.variant.reserve_sms else m


def reported(*reserve_sms: int) -> ReportModel:
    (case,) = synthetic.cases([4096])
    variants = synthetic.with_t1_and_t2s(*(replace(PLAIN, reserve_sms=sms) for sms in reserve_sms))
    trials = synthetic.Builder(change=slower).trials([replace(case, variants=variants)])
    return report.build(synthetic.StubRun(trials))


def explained(section: Section) -> dict[str, str]:
    return {row[0]: row[1] for row in tables.explanation(section).rows}


def test_the_reservations_part_is_printed_beside_the_penalty_of_variants_that_have_one() -> None:
    plain, reserved = reported(0, 20).sections
    assert f"{tables.RESERVATION}, ms" not in explained(plain)
    told = explained(reserved)
    assert 0 < float(told[f"{tables.RESERVATION}, ms"]) < float(told["split penalty T2s - T1, ms"])


def test_without_the_same_split_on_all_sms_it_is_not_known() -> None:
    (section,) = reported(20).sections
    assert explained(section)[f"{tables.RESERVATION}, ms"] == "n/a"


def test_machines_read_it_too_and_each_variant_is_named_by_what_it_leaves_free() -> None:
    found = document.document(reported(0, 20))
    rows = found["comparisons"]
    assert rows[0]["decomposition"]["reservation_s"] == 0
    assert rows[1]["decomposition"]["reservation_s"] > 0
    assert rows[1]["decomposition"]["efficiency_sm"] is not None
    assert rows[1]["variant"]["reserve_sms"] == 20
