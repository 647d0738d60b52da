"""Weights of layers, against A1111's numbers and the layouts of real networks."""

from __future__ import annotations

import pytest
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.modulation.weights import LayerWeights, layer_weights

SD1 = {"input": [], "middle": [True], "output": [True] * 12}
SDXL = {"middle": [True], "output": [True] * 9}
T2I = {"input": [True, False, False] * 4}
"""Deepest first, as in the host."""
T2I_XL = {"input": [False, False, True, False, True, False, False, True, False, False][::-1], "middle": [True]}
FLUX = {"input": [True] * 19, "output": [True] * 38}
QWEN, SD3 = {"input": [True] * 60}, {"input": [], "middle": [], "output": [True] * 24}
LAYOUTS = [(SD1, "unet"), (SDXL, "unet"), (T2I, "t2i"), (T2I_XL, "t2i"), (FLUX, "transformer"), (QWEN, "transformer")]


@pytest.mark.parametrize(("present", "layout"), [*LAYOUTS, (SD3, "transformer")])
def test_defaults_are_exactly_one_for_every_entry(present, layout):
    factors = layer_weights(present, layout, LayerWeights())
    assert factors == {key: [1.0] * len(entries) for key, entries in present.items()}


@pytest.mark.parametrize("mode", ["prompt", "control"])
def test_control_modes_of_sd1_are_a1111s(mode):
    factors = layer_weights(SD1, "unet", LayerWeights(mode=mode))
    known = [0.0994, 0.1205, 0.1461, 0.177, 0.2146, 0.2601, 0.3153, 0.3822, 0.4633, 0.5615, 0.6806, 0.825]
    assert factors["output"] == pytest.approx(known, abs=1e-4)
    assert factors["output"] == pytest.approx([0.825 ** (12 - i) for i in range(12)], rel=1e-12)
    assert factors["middle"] == [1.0]


def test_control_mode_of_sdxl_covers_the_same_range_over_fewer_layers():
    factors = layer_weights(SDXL, "unet", LayerWeights(mode="prompt"))
    assert factors["output"] == pytest.approx([0.825 ** (12 - 12 * i / 9) for i in range(9)])
    assert factors["middle"] == [1.0]


def test_control_mode_of_t2i_adapters_is_a1111s():
    soft = layer_weights(T2I, "t2i", LayerWeights(mode="prompt"))["input"]
    assert soft == [1.0, 1, 1, 0.825, 1, 1, 0.62, 1, 1, 0.25, 1, 1]
    xl = layer_weights(T2I_XL, "t2i", LayerWeights(mode="prompt"))
    assert [w for w, there in zip(xl["input"], T2I_XL["input"], strict=True) if there] == [0.825, 0.62, 0.25]
    assert xl["middle"] == [1.0]


def test_control_mode_of_t2i_networks_of_other_depths_rises_with_depth():
    soft = layer_weights({"input": [True] * 8}, "t2i", LayerWeights(mode="prompt"))["input"]  # Stable Cascade
    assert soft == sorted(soft, reverse=True) and (soft[0], soft[-1]) == (1.0, 0.25)
    assert layer_weights({"input": [True]}, "t2i", LayerWeights(mode="prompt"))["input"] == [1.0]


@pytest.mark.parametrize("present", [FLUX, QWEN, SD3, {"input": [True] * 5, "output": []}])
def test_control_mode_of_transformers_falls_over_all_blocks(present):
    factors = layer_weights(present, "transformer", LayerWeights(mode="prompt"))
    blocks = [*factors.get("input", []), *factors["output"]] if "output" in factors else factors["input"]
    assert blocks == sorted(blocks, reverse=True)
    assert (blocks[0], blocks[-1]) == (1.0, pytest.approx(0.825**12))


def test_holes_keep_their_place_in_the_depth():
    factors = layer_weights({"output": [True, False, True]}, "transformer", LayerWeights(mode="prompt"))
    assert factors["output"] == [1.0, 1.0, pytest.approx(0.825**12)]
    assert layer_weights({"output": [True]}, "transformer", LayerWeights(mode="prompt"))["output"] == [1.0]


@pytest.mark.parametrize(
    ("present", "layout", "detail", "structure", "composition"),
    [(SD1, "unet", 4, 4, 5), (SDXL, "unet", 3, 3, 4), (T2I, "t2i", 1, 1, 2), (FLUX, "transformer", 19, 19, 19)],
)
def test_three_bands(present, layout, detail, structure, composition):
    factors = layer_weights(present, layout, LayerWeights(bands=(2.0, 0.5, 0.0)))
    flat = [w for key in present for w, there in zip(factors[key], present[key], strict=True) if there]
    assert [flat.count(w) for w in (0.0, 0.5, 2.0)] == [detail, structure, composition]


def test_bands_lie_from_shallow_to_deep_in_unets_and_from_deep_to_shallow_in_transformers():
    only_composition = LayerWeights(bands=(1, 0, 0))
    assert layer_weights(SD1, "unet", only_composition)["output"] == [0.0] * 8 + [1.0] * 4
    assert layer_weights(T2I, "t2i", only_composition)["input"][::3] == [1, 1, 0, 0]
    assert layer_weights(FLUX, "transformer", only_composition)["input"] == [1.0] * 19
    assert not any(layer_weights(FLUX, "transformer", only_composition)["output"])


def test_weights_for_each_layer_in_their_order_and_multiplied():
    numbers = tuple(float(i) for i in range(1, 5))
    assert layer_weights(T2I, "t2i", LayerWeights(layers=numbers))["input"][::3] == [4, 3, 2, 1]
    xl = layer_weights(T2I_XL, "t2i", LayerWeights(layers=numbers))
    assert xl["middle"] == [4] and [w for w in xl["input"] if w != 1] == [3, 2]
    both = layer_weights(SD1, "unet", LayerWeights(mode="control", bands=(0.5, 1, 1), layers=(2.0,) * 12 + (3.0,)))
    assert both["middle"] == [1.5] and both["output"][0] == pytest.approx(2 * 0.825**12)
    flux = layer_weights({"input": [True, False], "output": [True]}, "transformer", LayerWeights(layers=(5.0, 6.0)))
    assert flux == {"input": [5, 1], "output": [6]}


def test_a_wrong_number_of_weights_says_how_many_there_are():
    with pytest.raises(ControlNetKitError, match="Got 12 weights of layers, but this network has 13"):
        layer_weights(SD1, "unet", LayerWeights(layers=(1.0,) * 12))


@pytest.mark.parametrize(
    "settings", [{"mode": "guess"}, {"bands": (1.0, 1.0)}, {"bands": (1, float("nan"), 1)}, {"layers": (1e9,)}]
)
def test_settings_check_themselves(settings):
    with pytest.raises(ControlNetKitError, match=r"mode|bands|-10 to 10"):
        LayerWeights(**settings)
