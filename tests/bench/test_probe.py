"""The probe passes on what the worker found, or why there is nothing to find."""

from pathlib import Path

import pytest
from small_sweep import FAKE_WORKER, Script
from synthetic import CPU

from bench.errors import BenchError, Exit
from bench.running import probe


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(tmp_path, monkeypatch)


def test_the_machine_is_read_from_the_last_line(script: Script) -> None:
    ready = probe.probe("cpu", FAKE_WORKER)
    assert (ready.machine, ready.environment) == (CPU, {"asked": "cpu"})


def test_a_refusal_is_the_workers_own_line(script: Script) -> None:
    script.write(probe="refuse")
    with pytest.raises(BenchError, match=r"^--device cuda: made-up refusal$") as refused:
        probe.probe("cuda", FAKE_WORKER)
    assert refused.value.code == Exit.BAD_INPUT


def test_a_missing_torch_is_said_with_the_way_to_get_it(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.write(probe="break")
    monkeypatch.setattr(probe, "find_spec", lambda name: None)
    with pytest.raises(
        BenchError, match=r"torch is not installed for .*: pip install 'moe-tbo-bench\[torch\]'"
    ) as ended:
        probe.probe("auto", FAKE_WORKER)
    assert ended.value.code == Exit.BAD_INPUT


def test_a_worker_that_breaks_is_an_internal_error_with_its_last_words(script: Script) -> None:
    script.write(probe="break")
    with pytest.raises(BenchError, match=r"could not start: exited with code 1: made-up traceback") as ended:
        probe.probe("auto", FAKE_WORKER)
    assert ended.value.code == Exit.INTERNAL


def test_an_answer_that_is_none_is_an_internal_error(script: Script) -> None:
    script.write(probe="mumble")
    with pytest.raises(BenchError, match=r"answer cannot be read: .*greeting") as ended:
        probe.probe("auto", FAKE_WORKER)
    assert ended.value.code == Exit.INTERNAL


def test_a_worker_that_does_not_answer_is_ended(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROBE_LIMIT_S", 0.05)
    with pytest.raises(BenchError, match="did not answer"):
        probe.probe("auto", FAKE_WORKER)
