"""Model shapes refuse what no machine could run, and are equal whatever they are called."""

import pytest

from moe_impl.shapes import PRESETS, ModelShape, Router


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((100, 64, 8, 2), "hidden_size must be a positive multiple of 16 .* got 100"),
        ((0, 64, 8, 2), "hidden_size must be a positive multiple of 16 .* got 0"),
        ((64, 8, 8, 2), "intermediate_size must be a positive multiple of 16 .* got 8"),
        ((64, 64, 0, 1), "num_experts must be at least 1, got 0"),
        ((64, 64, 8, 0), r"top_k must lie in 1..num_experts \(8\), got 0"),
        ((64, 64, 8, 9), r"top_k must lie in 1..num_experts \(8\), got 9"),
    ],
)
def test_a_size_that_no_machine_could_run_is_refused_by_name(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelShape(*sizes)


def test_a_name_is_for_people_only() -> None:
    assert ModelShape(64, 64, 8, 2, name="a") == ModelShape(64, 64, 8, 2, name="b")
    assert ModelShape(64, 64, 8, 2) != ModelShape(64, 64, 8, 2, Router(scoring="sigmoid"))


def test_an_expert_has_gate_up_and_down() -> None:
    assert ModelShape(64, 32, 8, 2).expert_parameters == 2 * 32 * 64 + 64 * 32


def test_deepseek_v3_is_the_published_shape() -> None:
    model = PRESETS["deepseek-v3"]
    assert (model.hidden_size, model.intermediate_size, model.num_experts, model.top_k) == (7168, 2048, 256, 8)
    assert model.router == Router("sigmoid", True, 8, 4, True, 2.5)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_called_by_its_key_and_its_experts_form_its_groups(name: str) -> None:
    model = PRESETS[name]
    assert model.name == name
    assert model.num_experts % model.router.num_groups == 0
    assert model.top_k <= model.num_experts // model.router.num_groups * model.router.top_groups
