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
    assert ModelShape(64, 64, 8, 2, name="a", moe_layers=3) == ModelShape(64, 64, 8, 2, name="b")
    assert ModelShape(64, 64, 8, 2) != ModelShape(64, 64, 8, 2, Router(scoring="sigmoid"))


def test_an_expert_has_gate_up_and_down() -> None:
    assert ModelShape(64, 32, 8, 2).expert_parameters == 2 * 32 * 64 + 64 * 32


def test_deepseek_v3_is_the_published_shape() -> None:
    model = PRESETS["deepseek-v3"]
    assert (model.hidden_size, model.intermediate_size, model.num_experts, model.top_k) == (7168, 2048, 256, 8)
    assert model.router == Router("sigmoid", True, 8, 4, True, 2.5)


# (hidden, intermediate, experts, top_k, parameters of the routed experts in 1e9: layers x experts x 3 H I)
CARDS = {
    "deepseek-v3": (7168, 2048, 256, 8, 58, 654),
    "deepseek-r1": (7168, 2048, 256, 8, 58, 654),
    "kimi-k2": (7168, 2048, 384, 8, 60, 1015),
    "ernie-4.5-300b-a47b": (8192, 3584, 64, 8, 51, 287),
    "ernie-4.5-21b-a3b": (2560, 1536, 64, 6, 27, 20),
    "qwen3-30b-a3b": (2048, 768, 128, 8, 48, 29),
    "qwen3-235b-a22b": (4096, 1536, 128, 8, 94, 227),
    "mixtral-8x7b": (4096, 14336, 8, 2, 32, 45),
    "gpt-oss-120b": (2880, 2880, 128, 4, 36, 115),
    "gpt-oss-20b": (2880, 2880, 32, 4, 24, 19),
}
"""The last two: MoE layers, and billions of routed parameters, a little below the size in the model's name."""


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_routed_experts_make_up_the_model_it_is_named_after(name: str) -> None:
    model = PRESETS[name]
    *sizes, layers, billions = CARDS[name]
    assert [model.hidden_size, model.intermediate_size, model.num_experts, model.top_k] == sizes
    assert model.moe_layers == layers
    assert round(layers * model.num_experts * model.expert_parameters / 1e9) == billions


def test_a_model_that_is_not_quite_the_layer_measured_says_so() -> None:
    assert {name for name, model in PRESETS.items() if model.note} == {"gpt-oss-120b", "gpt-oss-20b"}
    assert PRESETS["gpt-oss-20b"].note.startswith("shape only")


def test_deepseek_r1_is_the_shape_of_v3() -> None:
    assert PRESETS["deepseek-r1"] == PRESETS["deepseek-v3"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_called_by_its_key_and_its_experts_form_its_groups(name: str) -> None:
    model = PRESETS[name]
    assert model.name == name
    assert model.num_experts % model.router.num_groups == 0
    assert model.top_k <= model.num_experts // model.router.num_groups * model.router.top_groups
