"""SMs left free: the setting holds while a variant's ops are issued, by whichever thread, and no longer."""

from contextlib import contextmanager

import pytest
from small_layer import Built, workload

from moe_impl.carve_out import leaving_free, left_free
from moe_impl.options import Engine, Variant
from moe_impl.overlap.schedule import Op


def test_the_setting_ends_with_its_block_and_the_one_before_comes_back() -> None:
    assert left_free() == 0
    with leaving_free(20):
        assert left_free() == 20
        with leaving_free(0):
            assert left_free() == 0
        assert left_free() == 20
    assert left_free() == 0


def test_it_ends_with_a_raise_too() -> None:
    with pytest.raises(RuntimeError, match="made up"), leaving_free(8):
        raise RuntimeError("made up")
    assert left_free() == 0


@pytest.mark.parametrize("engine", ["streams", "threads"])
def test_all_ops_of_t2s_and_t2o_are_issued_under_it_and_none_of_t1(engine: Engine) -> None:
    variant = Variant("torch", engine=engine, reserve_sms=3)
    built = Built(workload())
    for one, expected in ((variant, 3), (variant.split_serial(), 3), (variant.unsplit(), 0)):
        seen: list[int] = []

        @contextmanager
        def asked(position: int, op: Op, seen: list[int] = seen):  # type: ignore[no-untyped-def]
            seen.append(left_free())
            yield

        run = built.run(one)
        run(asked)
        assert seen == [expected] * len(run.schedule.ops)
        assert left_free() == 0
