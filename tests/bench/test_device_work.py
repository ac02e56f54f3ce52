"""The timer against a profiler's span, and what a gate says of other work: from made-up pieces of GPU work."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import synthetic
from synthetic import Builder, cases
from whole_runs import compare_runs

from bench.deciding.changes import OtherWork
from bench.device_work import DeviceWork
from bench.measure.device_span import LONGEST_NAME, Piece, device_works, of_window, short
from bench.results import Measurement, from_record, to_record
from bench.settings import MeasureSettings
from moe_impl.options import Workload

US = 1000
SLEEP = "at::cuda::(anonymous namespace)::spin_kernel(long)"


def iteration(at_us: int, gemm_us: int = 100, name: str = "gemm") -> list[Piece]:
    """The timer's head start, then a GEMM, beside which a copy runs on another stream and ends last."""
    return [
        Piece((at_us - 50) * US, at_us * US, SLEEP),
        Piece(at_us * US, (at_us + gemm_us) * US, name),
        Piece((at_us + 10) * US, (at_us + gemm_us + 20) * US, "copy"),
        Piece((at_us + gemm_us) * US, (at_us + gemm_us + 5) * US, name),
    ]


def window(*iterations: list[Piece]) -> list[Piece]:
    return [piece for one in iterations for piece in one]


def four(begin_us: int, first_us: int, other_us: int) -> list[Piece]:
    return window(*(iteration(begin_us + 1000 * i, other_us if i else first_us) for i in range(4)))


def test_the_span_reaches_over_all_streams_and_the_first_iteration_does_not_count() -> None:
    taken_s = [1e-3, 121e-6, 122e-6, 123e-6, 1e-3, 221e-6, 222e-6, 223e-6]
    found = of_window([*four(100, 900, 100), *four(9000, 900, 200)], ["off", "on"], taken_s)
    assert found == {
        "off": DeviceWork(pytest.approx(120e-6), 122e-6, 3, ("copy", "gemm")),
        "on": DeviceWork(pytest.approx(220e-6), 222e-6, 3, ("copy", "gemm")),
    }
    assert found["off"].disagreement() is None


def test_what_cannot_be_told_apart_is_unknown() -> None:
    uneven = window(*(iteration(1000 * i + 100) for i in range(3)), iteration(3100)[:-1])
    assert of_window(uneven, ["off"], [1e-4] * 4) == {}
    other = window(*(iteration(1000 * i + 100) for i in range(3)), iteration(3100, name="another"))
    assert of_window([*other, *four(9000, 100, 100)], ["off", "on"], [1e-4] * 8).keys() == {"on"}
    assert of_window(four(100, 100, 100), ["off", "on"], [1e-4] * 8) == {}, "four iterations are missing"


def test_the_profiler_collects_when_no_variant_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[object] = []

    class Profiler:
        def __init__(self, activities: object) -> None:
            pass

        def __enter__(self) -> "Profiler":
            return self

        def __exit__(self, *ended: object) -> None:
            happened.append("collects")
            raise RuntimeError("made up")

    class Timed:
        def device_time_s(self, call: Callable[[], object]) -> float:
            call()
            return 1.0

    monkeypatch.setattr("torch.profiler.profile", Profiler)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    calls = {"off": lambda: happened.append("runs off"), "on": lambda: happened.append("runs on")}
    assert device_works(calls, Timed(), announce=happened.append) == {}  # type: ignore[arg-type]
    assert happened == ["off", *["runs off"] * 4, "on", *["runs on"] * 4, None, "collects"]


@pytest.mark.parametrize(("timer_s", "agrees"), [(1.019, True), (0.981, True), (1.021, False), (0.979, False)])
def test_over_two_percent_apart_is_said(timer_s: float, agrees: bool) -> None:
    said = DeviceWork(1.0, timer_s, 1, ()).disagreement()
    assert (said is None) is agrees
    assert agrees or "timer and profiler disagree: " in str(said)


def test_long_names_are_shortened_and_stay_distinct() -> None:
    one, other = "k" * 200 + "a", "k" * 200 + "b"
    assert short("gemm") == "gemm"
    assert len(short(one)) == LONGEST_NAME
    assert short(one) != short(other)


def run(work: dict[str, DeviceWork]) -> list[synthetic.Trial]:
    def change(m: Measurement, pass_index: int, workload: Workload) -> Measurement:
        return replace(m, device_work=work.get(m.role)) if pass_index == 0 else m

    return Builder(pairs=6, change=change).trials(cases([4096]))


BEFORE = DeviceWork(1e-3, 1e-3, 812, ("gemm", "silu"))
AFTER = DeviceWork(1e-3, 1e-3, 930, ("gemm", "silu_mul"))


def test_runs_that_launch_other_work_are_told_apart_by_role() -> None:
    (row,) = compare_runs(
        run({"T1": BEFORE, "T2o": BEFORE}), run({"T1": BEFORE, "T2o": AFTER}), MeasureSettings()
    ).changes
    assert row.other_work == (OtherWork("T2o", 812, 930, ("silu_mul",), ("silu",)),)


def test_what_one_run_did_not_record_is_not_called_different() -> None:
    for other in ({}, {"T1": BEFORE, "T2o": BEFORE}):
        (row,) = compare_runs(run({"T1": BEFORE, "T2o": BEFORE}), run(other), MeasureSettings()).changes
        assert row.other_work == ()


def test_it_is_stored_and_read_back() -> None:
    trial = run({"T2o": AFTER})[0]
    assert from_record(to_record(trial)) == trial
