"""Run folders that were damaged: no traceback, no number from a broken record, and a line that says where and what."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import damage
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from in_process import bench, no_accident, refused

from bench.results import to_record

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
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = synthetic.write_run(tmp_path_factory.mktemp("damaged") / "run", TRIALS, CONFIG)
    assert bench("compare", folder).code == 0, "whole, it is read"
    yield folder


@pytest.fixture(autouse=True)
def whole(run: Path) -> None:
    (run / "results.jsonl").write_bytes(WHOLE)
    (run / "config.resolved.yaml").write_text(CONFIG)
    (run / "environment.json").write_text(json.dumps(ENVIRONMENT))


def is_damage(place: damage.Path_, before: Any, after: Any) -> bool:
    """Whether the record is no longer what this program could have written. A digit or a word that changed is not seen:
    another text in a free text, another number in its range, None or nothing where nothing need be.
    """
    optional = {"check", "stages", "memory", "traffic", "spread", "reason", "gpu", "note", "capability"}
    optional |= {"effective_split_factor", "rank_skew", "triton_version", "same_as_unsplit", "max_tokens_per_rank"}
    optional |= {"expert_imbalance", "rank"}
    key = next(part for part in reversed(place) if isinstance(part, str))
    if after is damage or after is None:
        return key not in optional
    return damage.kind(before) != damage.kind(after)


@given(damaged=damage.damaged_json(RECORDS[0]))
def test_a_value_of_another_kind_is_refused(run: Path, damaged: tuple[Any, damage.Path_, str]) -> None:
    record, place, _ = damaged
    (run / "results.jsonl").write_text(damage.text(RECORDS[1]) + "\n" + damage.text(record) + "\n")
    said = bench("compare", run)
    no_accident(said)


@given(data=damage.damaged_bytes(WHOLE))
def test_bytes(run: Path, data: bytes) -> None:
    (run / "results.jsonl").write_bytes(data)
    no_accident(bench("compare", run))


@given(damaged=damage.damaged_json(ENVIRONMENT))
def test_env(run: Path, damaged: tuple[Any, damage.Path_, str]) -> None:
    (run / "environment.json").write_text(damage.text(damaged[0]))
    no_accident(bench("compare", run))


@given(data=damage.damaged_bytes(json.dumps(ENVIRONMENT).encode()))
def test_envbytes(run: Path, data: bytes) -> None:
    (run / "environment.json").write_bytes(data)
    no_accident(bench("compare", run))


@given(data=damage.damaged_bytes(CONFIG.encode()))
def test_confbytes(run: Path, data: bytes) -> None:
    (run / "config.resolved.yaml").write_bytes(data)
    no_accident(bench("compare", run))
