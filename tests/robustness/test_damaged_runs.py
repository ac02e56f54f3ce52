"""Run folders that were damaged: no traceback, no number from a broken record, and a line that says where and what."""

import json
import math
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import damage
import pytest
import synthetic
from hypothesis import given, settings
from in_process import bench, no_accident, refused

from bench import results
from bench.quick_record import QuickReader
from bench.results import to_record
from bench.strict_json import distinct_keys
from moe_impl import attention_shapes, options, shapes

CONFIG = """\
# Question: does a damaged run say so?
schema: 1
case: {model: deepseek-v3, ep_size: 8, layers: 2, tokens: [256, 512], precision: bf16, link: {paced: h800-nvlink-ep8}}
variants: [{engine: streams, split_factor: 2}]
measure: {passes: 1}
"""
TRIALS = synthetic.Builder(passes=1, pairs=2).trials(synthetic.cases((256, 512)))
RECORDS: list[dict[str, Any]] = [json.loads(json.dumps(to_record(trial))) for trial in TRIALS]
WHOLE = "".join(damage.text(record) + "\n" for record in RECORDS).encode()
ENVIRONMENT = {"torch": "2.13.0", "gpu": {"name": "H100", "memory_bytes": 1}, "packages": {"numpy": None}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = synthetic.write_run(tmp_path_factory.mktemp("damaged") / "run", TRIALS, CONFIG)
    assert bench("compare", folder).code == 0, "whole, it is read"
    return folder


@pytest.fixture(autouse=True)
def whole(run: Path) -> None:
    (run / "results.jsonl").write_bytes(WHOLE)
    (run / "config.resolved.yaml").write_text(CONFIG)
    (run / "environment.json").write_text(json.dumps(ENVIRONMENT))


STORED = [
    one for module in (results, options, shapes, attention_shapes) for one in vars(module).values() if is_dataclass(one)
]
MAY_LACK = {name for one in STORED for name, hint in get_type_hints(one).items() if NoneType in get_args(hint)}
"""Keys whose value may be null, which means that nobody knows, or that it does not apply."""
HAVE_DEFAULTS = {
    spec.name for one in STORED for spec in fields(one) if (spec.default, spec.default_factory) != (MISSING, MISSING)
}
"""Keys that a record from before them lacks."""


def is_damage(record: Any, place: damage.Path_) -> bool:
    """Whether what was done at ``place`` must be seen: a key that is gone, a value of another kind.

    Out of reach: another digit in its range, another word, an element less in a list or a table whose length nothing
    tells.
    """
    key = place[-1]
    try:
        after = damage.at(record, place)
    except (KeyError, IndexError):
        return isinstance(key, str) and key not in HAVE_DEFAULTS | MAY_LACK and place[-2:-1] != ("spent_s",)
    before = damage.at(RECORDS[0], place)
    if after is None:
        return key not in MAY_LACK
    if before is None or isinstance(key, int):
        return False
    kinds = {damage.kind(before), damage.kind(after)}
    return len(kinds) == 2 and kinds != {"whole", "number"} and not (key == "split" and after == {})


@given(damaged=damage.damaged_json(RECORDS[0]))
def test_a_record_with_a_value_that_cannot_be(run: Path, damaged: tuple[Any, damage.Path_, str]) -> None:
    record, place, _ = damaged
    stored = run / "results.jsonl"
    stored.write_text(damage.text(RECORDS[1]) + "\n" + damage.text(record) + "\n")
    said = bench("compare", run)
    no_accident(said)
    if is_damage(record, place):
        refused(said, f"{stored}:2: ")


@given(damaged=damage.damaged_json(RECORDS[0]))
def test_the_quick_reader_takes_no_line_that_the_strict_one_refuses(damaged: tuple[Any, damage.Path_, str]) -> None:
    line = damage.text(damaged[0])
    quick, of_times = (QuickReader(times_only).read(line.encode()) for times_only in (False, True))
    if quick is not None:
        assert repr(results.from_record(json.loads(line))) == repr(quick)
    if of_times is not None:
        results.from_record(json.loads(line))


@given(data=damage.damaged_bytes(WHOLE))
def test_nor_one_with_damaged_bytes(data: bytes) -> None:
    reader = QuickReader()
    for line in data.split(b"\n"):
        quick = reader.read(line)
        if quick is not None:
            assert repr(results.from_record(json.loads(line, object_pairs_hook=distinct_keys))) == repr(quick)


@pytest.mark.parametrize("value", [-1, -0.5, math.nan, math.inf, -math.inf, 1e308, 10**300])
def test_no_number_out_of_its_range_is_compared(run: Path, value: float) -> None:
    """Every number of a record but those of what was asked for, whose ids tell of any change."""
    stored = run / "results.jsonl"
    numbers = [p for p in damage.places(RECORDS[0]) if damage.kind(damage.at(RECORDS[0], p)) in ("whole", "number")]
    for place in numbers:
        stored.write_text(damage.text(damage.replaced(RECORDS[0], place, value)) + "\n")
        refused(bench("compare", run), f"{stored}:1: ")


@given(data=damage.damaged_bytes(WHOLE))
def test_results_with_damaged_bytes(run: Path, data: bytes) -> None:
    """Exit 0 only with every whole line a Trial; a line without its end is told."""
    (run / "results.jsonl").write_bytes(data)
    said = bench("compare", run)
    no_accident(said)
    if not data.endswith(b"\n") and data and said.code == 0:
        assert "unfinished last line left out" in said.err


@pytest.mark.parametrize("damaged", ["twice the same key", "nested", "an array"])
def test_json_that_python_would_take_is_refused(run: Path, damaged: str) -> None:
    line = damage.text(RECORDS[0])
    lines = {
        "twice the same key": line[:-1] + ', "elapsed_s": 2.0}',
        "nested": line[:-1] + ', "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "an array": f"[{line}]",
    }
    (run / "results.jsonl").write_text(lines[damaged] + "\n")
    refused(bench("compare", run), f"{run / 'results.jsonl'}:1: ")


OTHER_ENVIRONMENTS = damage.damaged_json(ENVIRONMENT).map(lambda damaged: damage.text(damaged[0]).encode())


@given(data=OTHER_ENVIRONMENTS | damage.damaged_bytes(json.dumps(ENVIRONMENT).encode()))
def test_a_damaged_environment(run: Path, data: bytes) -> None:
    """What is recorded of a machine is free in form: it is shown, or refused by its name."""
    (run / "environment.json").write_bytes(data)
    said = bench("compare", run)
    no_accident(said)
    if said.code != 0:
        refused(said, run / "environment.json")


@given(data=damage.damaged_bytes(CONFIG.encode()))
def test_a_resolved_config_with_damaged_bytes(run: Path, data: bytes) -> None:
    (run / "config.resolved.yaml").write_bytes(data)
    said = bench("compare", run)
    no_accident(said)
    if said.code != 0:
        refused(said, run / "config.resolved.yaml", "the sweep has ")


@settings(max_examples=3)
@given(data=OTHER_ENVIRONMENTS)
def test_a_report_shows_any_environment(run: Path, data: bytes) -> None:
    (run / "environment.json").write_bytes(data)
    no_accident(bench("report", run))
