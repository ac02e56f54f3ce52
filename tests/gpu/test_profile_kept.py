"""A real profile on this GPU: iterations are named, every variant is there, comm has a stream of its own in T2o."""

from pathlib import Path

import pytest
from small_sweep import small_case

from bench.profiling import drive
from bench.profiling.kept import keep, load
from bench.profiling.request import ITERATIONS, Request
from bench.render import timeline_section

pytestmark = pytest.mark.gpu


def test_a_profile_with_torch_becomes_a_figure_of_all_variants(tmp_path: Path) -> None:
    request = Request(small_case(tokens=64), "torch", str(tmp_path))
    kept = keep(request, drive.profile(request), "again")
    assert load(tmp_path) == kept
    assert kept.missing == ()
    for one in kept.profiled:
        assert (one.strip.told, one.strip.iterations) == ("named", ITERATIONS)
        assert not any("iteration" in doubt for doubt in one.analysis.doubts)
    (pair,) = kept.pairs
    assert pair.off is not None
    assert len({lane.stream for lane in pair.off.strip.lanes}) == 1
    assert len({lane.stream for lane in pair.on.strip.lanes}) == 2
    (picture,) = timeline_section.pictures([kept])
    assert "stream" in picture.svg
