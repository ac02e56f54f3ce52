"""``case.routing``: read with positions, written out, named in filters, in ids and records as little as possible."""

# ruff: noqa: E501  (a table of messages, one a line)

import json
from dataclasses import replace

import pytest
from synthetic import Builder
from synthetic import cases as synthetic_cases

from bench import config
from bench.cases import expand
from bench.errors import BenchError
from bench.filters import select
from bench.identity import canonical, case_id
from bench.results import Traffic, UnreadableTrialError, from_record, to_record
from moe_impl.links import LOCAL
from moe_impl.options import RoutingKind, SkewedRouting, Workload
from moe_impl.shapes import PRESETS

FILE = """\
schema: 1
case:
  model: deepseek-v3
  ep_size: {ep_size}
  routing: {routing}
  tokens: 16
  precision: bf16
  link: local
"""
ALL = "[model, uniform, {zipf: 1}, {zipf: 1.0, rank: mean}, {hotspot: 0.3, rank: hottest}, {hotspot: 0.3, rank: 5}]"
ROUTINGS: tuple[RoutingKind | SkewedRouting, ...] = (
    "model",
    "uniform",
    SkewedRouting("zipf", 1.0),
    SkewedRouting("zipf", 1.0, "mean"),
    SkewedRouting("hotspot", 0.3, "hottest"),
    SkewedRouting("hotspot", 0.3, 5),
)
BARE = Workload(PRESETS["deepseek-v3"], ep_size=8, layers=2, tokens=1024, precision="bf16")


def parsed(routing: str, ep_size: str = "8") -> config.SweepConfig:
    return config.parse(FILE.format(routing=routing, ep_size=ep_size), "x.yaml")


def test_names_and_skews_are_read() -> None:
    assert parsed(ALL).case.routing == ROUTINGS
    assert parsed("{hotspot: 1}").case.routing == (SkewedRouting("hotspot", 1.0, "hottest"),)


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        ("zipf", "5:3: case.routing: found zipf, allowed: model, uniform, {zipf: S}, {hotspot: SHARE}"),
        ("zipff", "5:3: case.routing: found zipff, did you mean zipf? allowed: model, uniform, {zipf: S}, {hotspot: SHARE}"),
        ("modle", "5:3: case.routing: found modle, did you mean model? allowed: model, uniform, {zipf: S}, {hotspot: SHARE}"),
        ("[[model]]", "5:13: case.routing: found a list, allowed: model, uniform, {zipf: S}, {hotspot: SHARE}"),
        ("{}", "5:3: case.routing: found an empty mapping, expected one of zipf, hotspot"),
        ("{rank: 3}", "5:3: case.routing: found a mapping without either, expected one of zipf, hotspot"),
        ("{zipf: 1.0, hotspot: 0.1}", "5:3: case.routing: found zipf and hotspot, expected one of zipf, hotspot"),
        ("{zip: 1.0}", "5:13: case.routing: unknown key zip, did you mean zipf? allowed: zipf, hotspot, rank"),
        ("{zipf: steep}", "5:13: case.routing.zipf: found steep, expected a number such as 1.0 (zipf) or 0.3 (hotspot)"),
        ("{zipf: true}", "5:13: case.routing.zipf: found true, expected a number such as 1.0 (zipf) or 0.3 (hotspot)"),
        ("{zipf: 0}", "5:13: case.routing.zipf: must be above 0 and at most 8 for zipf, got 0"),
        ("{rank: 1, hotspot: 30}", "5:22: case.routing.hotspot: must be above 0 and at most 1 for hotspot, got 30"),
        ("{hotspot: .nan}", "5:13: case.routing.hotspot: must be above 0 and at most 1 for hotspot, got nan"),
        ("{zipf: 1, rank: hotest}", "5:22: case.routing.rank: found hotest, did you mean hottest? allowed: hottest, mean, or a rank's number"),
        ("{zipf: 1, rank: true}", "5:22: case.routing.rank: found true, allowed: hottest, mean, or a rank's number"),
        ("{zipf: 1, rank: -1}", "5:22: case.routing.rank: found -1, expected a whole number >= 0"),
        ("[{zipf: 1, rank: 8}, model]", "5:23: case.routing.rank: found 8, expected at most 7: ep_size 8 has ranks 0..7"),
        ("[{zipf: 1}, {zipf: 1.0}]", "5:24: case.routing: found the same value twice: a mapping is already on the list"),
    ],
    ids=range(18),
)  # fmt: skip
def test_a_mistake_gets_one_line(routing: str, message: str) -> None:
    with pytest.raises(BenchError) as refused:
        parsed(routing)
    assert refused.value.problems == (f"x.yaml:{message}",)


def test_a_rank_that_only_some_ep_size_has_is_left_to_the_points_that_have_it() -> None:
    assert parsed("{zipf: 1, rank: 8}", "[8, 16]").case.routing == (SkewedRouting("zipf", 1, 8),)


@pytest.mark.parametrize("routing", [ALL, "{zipf: 0.1234567890123456789}", "{hotspot: 1}"])
def test_it_is_written_out_and_read_back(routing: str) -> None:
    sweep = parsed(routing)
    text = config.dump_resolved(sweep)
    assert config.parse(text, "again.yaml") == sweep
    if routing == ALL:
        assert "    - {zipf: 1.0, rank: hottest}\n" in text
        assert "    - {hotspot: 0.3, rank: 5}\n" in text


def test_a_filter_picks_one() -> None:
    cases = expand(parsed(ALL))
    assert [str(case.workload.routing) for case in cases] == [
        "model", "uniform", "zipf-1-hottest", "zipf-1-mean", "hotspot-0.3-hottest", "hotspot-0.3-rank5",
    ]  # fmt: skip
    with_variants = [replace(case, variants=synthetic_cases([16])[0].variants) for case in cases]
    assert [case.workload.routing for case in select(with_variants, "routing=zipf-1-mean")] == [ROUTINGS[3]]


def test_each_has_an_id_of_its_own_and_the_names_keep_theirs() -> None:
    ids = [case_id(replace(BARE, routing=routing), LOCAL) for routing in ROUTINGS]
    assert len(set(ids)) == len(ROUTINGS)
    assert ids[0] == case_id(BARE, LOCAL)
    assert "routing" not in canonical(BARE)
    assert canonical(replace(BARE, routing="uniform"))["routing"] == "uniform"
    assert canonical(replace(BARE, routing=ROUTINGS[2]))["routing"] == {"kind": "zipf", "amount": 1.0}
    whole = replace(BARE, routing=SkewedRouting("zipf", 1))
    assert json.dumps(canonical(whole)) == json.dumps(canonical(replace(BARE, routing=ROUTINGS[2])))


@pytest.mark.parametrize("routing", ROUTINGS, ids=str)
def test_a_record_keeps_it(routing: RoutingKind | SkewedRouting) -> None:
    trial = Builder(passes=1, pairs=2).trials(synthetic_cases([256]))[0]
    trial = replace(trial, workload=replace(trial.workload, routing=routing))
    again = from_record(json.loads(json.dumps(to_record(trial))))
    assert again == trial
    assert repr(again.workload.routing) == repr(routing)


def test_a_record_with_a_routing_that_cannot_be_is_refused() -> None:
    trial = Builder(passes=1, pairs=2).trials(synthetic_cases([256]))[0]
    record = json.loads(json.dumps(to_record(replace(trial, workload=replace(trial.workload, routing=ROUTINGS[2])))))
    record["case"]["workload"]["routing"]["amount"] = 9.0
    with pytest.raises(UnreadableTrialError, match=r"workload\.routing"):
        from_record(record)


def test_traffic_from_before_anyone_counted_experts_and_ranks_is_read() -> None:
    counted = Traffic(10.5, 7, (12, 3), 1.6, 2, (10.5, 9.0), 1.08)
    trial = replace(Builder(passes=1, pairs=2).trials(synthetic_cases([256]))[0], traffic=counted)
    record = json.loads(json.dumps(to_record(trial)))
    assert from_record(record).traffic == counted
    assert counted.rows_over_mean == pytest.approx(10.5 / 9.75)
    record["traffic"] = {"rows": 10.5, "busiest_expert_pairs": 7}
    old = from_record(record).traffic
    assert old is not None
    assert (old.expert_pairs, old.expert_imbalance, old.rank, old.rank_rows) == ((), None, None, ())
    assert (old.rank_imbalance, old.rows_over_mean) == (1.0, 1.0)
