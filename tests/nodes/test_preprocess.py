"""Preprocessor nodes: the core's table, batch in, batch out, at the resolution asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError, HintError
from controlnet_kit.cn_core.preprocess.canny import CannySettings, canny
from controlnet_kit.cn_core.preprocess.registry import PREPROCESSORS
from controlnet_kit.nodes.preprocess import PREPROCESSOR_NODES
from random_models import run
from torch import Tensor

every = pytest.mark.parametrize("node", PREPROCESSOR_NODES.values(), ids=list(PREPROCESSOR_NODES))


def inputs(node: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """All of them, in the order in which workflows store their values."""
    return {name: spec for section in node.INPUT_TYPES().values() for name, spec in section.items()}


def defaults(node: Any) -> dict[str, Any]:
    """Of all widgets."""
    return {name: options["default"] for name, (_, options) in inputs(node).items() if "default" in options}


def hints(image: Tensor, low: int = 100, high: int = 200, resolution: int = 0) -> Tensor:
    node = PREPROCESSOR_NODES["PreprocessCanny"]
    return run(node, image=image, low_threshold=low, high_threshold=high, resolution=resolution)[0]


def squares(batch: int = 2, channels: int = 3) -> Tensor:
    image = torch.zeros(batch, 48, 64, channels)
    for index in range(batch):
        image[index, 10 + index : 30, 20:50] = 1.0
    return image


def test_canny_has_the_inputs_that_it_always_had():
    """Workflows store values by position."""
    spec = inputs(PREPROCESSOR_NODES["PreprocessCanny"])
    numbers = {
        name: (kind, *(options[key] for key in ("default", "min", "max")))
        for name, (kind, options) in spec.items()
        if name != "image"
    }
    assert list(spec) == ["image", "low_threshold", "high_threshold", "resolution"]
    assert numbers == {
        "low_threshold": ("INT", 100, 0, 255),
        "high_threshold": ("INT", 200, 0, 255),
        "resolution": ("INT", 0, 0, 16384),
    }


@every
def test_forms_are_the_settings_with_the_picture_first_and_the_resolution_last(node: Any):
    entry = next(entry for entry in PREPROCESSORS.values() if entry.node_id == node.__name__)
    spec = inputs(node)
    assert list(spec) == ["image", *vars(entry.settings()), "resolution"]
    assert {name: options.get("default") for name, (_, options) in spec.items()} == {
        "image": None,
        **vars(entry.settings()),
        "resolution": 0,
    }
    node.GET_SCHEMA().validate()
    assert all(field.tooltip for field in node.GET_SCHEMA().inputs)


def test_a_seed_stays_what_it_is():
    """The host's interface would draw a new one for every run."""
    assert inputs(PREPROCESSOR_NODES["PreprocessShuffle"])["seed"][1]["control_after_generate"] == "fixed"


@every
def test_it_is_the_cores_function(node: Any):
    entry = next(entry for entry in PREPROCESSORS.values() if entry.node_id == node.__name__)
    image = torch.rand(2, 40, 56, 3, generator=torch.Generator().manual_seed(1))
    hint = run(node, image=image, **(defaults(node) | {"resolution": 32}))[0]
    assert hint.shape == (2, 32, 45, 3) and hint.is_contiguous()
    assert torch.equal(hint, entry(image.movedim(-1, 1), resolution=32).movedim(1, -1))
    assert run(node, image=image, **defaults(node))[0].shape == image.shape


def test_a_value_that_no_form_lets_through_is_refused():
    node = PREPROCESSOR_NODES["PreprocessBlur"]
    with pytest.raises(ControlNetKitError, match="sigma is -1"):
        run(node, image=squares(), sigma=-1.0, resolution=0)


def test_it_is_the_cores_canny():
    image = squares()
    expected = canny(image.movedim(-1, 1), CannySettings(low_threshold=100, high_threshold=200))
    assert torch.equal(hints(image), expected.movedim(1, -1))
    assert set(hints(image).unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(hints(image)[0], hints(image)[1])


@pytest.mark.parametrize(("resolution", "shape"), [(0, (48, 64)), (24, (24, 32)), (96, (96, 128)), (50, (50, 67))])
def test_resolution_is_the_short_side(resolution, shape):
    hint = hints(squares(), resolution=resolution)
    assert hint.shape == (2, *shape, 3)
    assert hint.sum() > 0


@every
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_and_alpha(node: Any, channels: int):
    assert torch.equal(
        run(node, image=squares(channels=channels), **defaults(node))[0],
        run(node, image=squares(), **defaults(node))[0],
    )


@every
def test_a_broken_picture_is_refused(node: Any):
    with pytest.raises(HintError, match="NaN"):
        run(node, image=torch.full((1, 8, 8, 3), float("nan")), **defaults(node))
    with pytest.raises(HintError, match="empty"):
        run(node, image=torch.zeros(0, 8, 8, 3), **defaults(node))


@every
def test_other_types_of_pictures(node: Any):
    """Memory of any layout and halves of floats pass, whole numbers are refused."""
    image = squares()
    expected = run(node, image=image, **defaults(node))[0]
    spread = torch.zeros(2, 96, 64, 6)
    spread[:, ::2, :, ::2] = image
    assert torch.equal(run(node, image=spread[:, ::2, :, ::2], **defaults(node))[0], expected)
    for dtype in (torch.float16, torch.bfloat16):
        hint = run(node, image=image.to(dtype), **defaults(node))[0]
        assert hint.dtype == dtype and hint.shape == expected.shape
    for dtype in (torch.uint8, torch.int64, torch.bool, torch.complex64):
        with pytest.raises(HintError, match="takes floats"):
            run(node, image=image.to(dtype), **defaults(node))
