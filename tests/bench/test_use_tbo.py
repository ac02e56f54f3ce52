"""``USE_TBO`` stands for a variant where the sweep file lists none, and is ignored, with a word, where it does."""

import pytest

from bench import config
from bench.cases import expand
from bench.errors import BenchError, Exit
from bench.use_tbo import with_variants
from moe_impl.options import Variant

CASE = "schema: 1\ncase: {model: deepseek-v3, ep_size: 8, tokens: 16, precision: bf16, link: local}\n"
WITHOUT = config.parse(CASE, "x.yaml")
WITH = config.parse(CASE + "variants: [{split_factor: 4}]\n", "x.yaml")
T2O = Variant("torch", engine="streams", split_factor=2, receive="worst_case")


@pytest.mark.parametrize("environment", [{}, {"USE_TBO": "1"}])
def test_unset_or_1_is_fastdeploys_tbo(environment: dict[str, str]) -> None:
    sweep, ignored = with_variants(WITHOUT, environment)
    assert ignored is None
    assert [case.variants for case in expand(sweep)] == [(T2O.unsplit(), T2O.split_serial(), T2O)]


def test_0_is_t1_alone() -> None:
    sweep, ignored = with_variants(WITHOUT, {"USE_TBO": "0"})
    assert ignored is None
    assert [case.variants for case in expand(sweep)] == [(T2O.unsplit(),)]


@pytest.mark.parametrize("value", ["", "2", "true", " 1"])
def test_any_other_value_is_the_users_mistake(value: str) -> None:
    with pytest.raises(BenchError) as refused:
        with_variants(WITHOUT, {"USE_TBO": value})
    assert refused.value.code == Exit.BAD_INPUT
    assert refused.value.problems == (f"USE_TBO: found {value!r}, allowed: 0, 1, or unset (which means 1)",)


@pytest.mark.parametrize("value", ["0", "1", "maybe"])
def test_with_variants_listed_it_is_ignored_and_that_is_said(value: str) -> None:
    assert with_variants(WITH, {"USE_TBO": value}) == (
        WITH,
        f"USE_TBO={value} is ignored: the sweep file lists its variants",
    )
    assert with_variants(WITH, {}) == (WITH, None)


def test_the_resolved_file_lists_the_variants_that_were_used() -> None:
    for environment in ({}, {"USE_TBO": "0"}):
        sweep, _ = with_variants(WITHOUT, environment)
        again = config.parse(config.dump_resolved(sweep), "config.resolved.yaml")
        assert again == sweep
        assert again.variants
