"""Preprocessors with a mask, a second picture or room around: what the core gives, as the host's types."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.cn_core.preprocess.color_fix import ColorFixSettings, color_fix
from controlnet_kit.cn_core.preprocess.flow import FlowSettings, flow_hint
from controlnet_kit.cn_core.preprocess.inpaint import OutpaintSettings, outpaint
from controlnet_kit.cn_core.preprocess.stereo import StereoSettings, stereo_depth
from controlnet_kit.nodes.preprocess_pairs import (
    PAIR_NODES,
    PreprocessColorFix,
    PreprocessInpaint,
    PreprocessOpticalFlow,
    PreprocessOutpaint,
    PreprocessStereoDepth,
)
from random_models import run
from torch import Tensor

FRAMES = torch.rand(3, 72, 96, 3, generator=torch.Generator().manual_seed(3))


def pixels(image: Tensor) -> Tensor:
    return image.movedim(-1, 1)


@pytest.mark.parametrize("node", PAIR_NODES)
def test_schemas(node: Any):
    schema = node.GET_SCHEMA()
    schema.validate()
    assert schema.node_id == node.__name__ and schema.node_id.startswith("Preprocess")
    assert schema.description and all(field.tooltip for field in schema.inputs)


@pytest.mark.parametrize(("pictures", "masks"), [(1, 3), (3, 1), (3, 3)])
def test_inpaint(pictures, masks):
    image, mask = FRAMES[:pictures], torch.zeros(masks, 36, 48)
    mask[:, 9:27, 12:36] = 1
    hint = run(PreprocessInpaint, image=image, mask=mask, fill="-1", resolution=0)[0]
    assert hint.shape == (3, 72, 96, 3) and (hint[:, 20:50, 26:70] == -1).all()
    assert torch.equal(hint[:, :17], image[:, :17].expand(3, -1, -1, -1))
    smaller = run(PreprocessInpaint, image=image, mask=mask, fill="black", resolution=36)[0]
    assert smaller.shape == (3, 36, 48, 3) and (smaller[:, 10:26, 13:35] == 0).all()


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("node", PAIR_NODES)
def test_grey_and_alpha(node: Any, channels: int):
    """Grey is three equal channels; where alpha is 1 it changes nothing."""
    colour = FRAMES.mean(dim=3, keepdim=True).repeat(1, 1, 1, 3) if channels == 1 else FRAMES
    other = colour[..., :1] if channels == 1 else torch.cat([FRAMES, torch.ones_like(FRAMES[..., :1])], dim=3)
    assert all(torch.equal(*both) for both in zip(results(node, colour), results(node, other), strict=True))


@pytest.mark.parametrize("node", PAIR_NODES)
def test_a_broken_picture_is_refused(node: Any):
    for name in pictures_of(node):
        for broken, message in ((FRAMES * float("nan"), "NaN"), (FRAMES[:0], "empty"), (FRAMES.int(), "floats")):
            with pytest.raises(HintError, match=message):
                results(node, FRAMES, **{name: broken})


def pictures_of(node: Any) -> list[str]:
    """The names of its inputs for pictures."""
    return [field.id for field in node.GET_SCHEMA().inputs if field.io_type == "IMAGE"]


def results(node: Any, image: Tensor, /, **changes: Tensor) -> tuple[Tensor, ...]:
    """With the form as it opens."""
    schema = node.GET_SCHEMA()
    values = {field.id: field.default for field in schema.inputs if getattr(field, "default", None) is not None}
    if "mask" in (field.id for field in schema.inputs):
        values["mask"] = (torch.arange(96.0) > 40).float().expand(3, 72, 96)
    return run(node, **(values | dict.fromkeys(pictures_of(node), image) | changes))


def test_inpaint_says_what_does_not_fit():
    with pytest.raises(HintError, match="3 pictures and 2 masks"):
        run(PreprocessInpaint, image=FRAMES, mask=torch.zeros(2, 8, 8), fill="-1", resolution=0)


def test_outpaint():
    sides: dict[str, Any] = {"left": 8, "top": 16, "right": 0, "bottom": 24, "overlap": 4, "fill": "black"}
    hint, mask, image = run(PreprocessOutpaint, image=FRAMES, **sides)
    assert hint.shape == image.shape == (3, 112, 104, 3) and mask.shape == (3, 112, 104)
    expected = outpaint(pixels(FRAMES), OutpaintSettings(**sides))
    assert torch.equal(pixels(hint), expected[0]) and torch.equal(mask, expected[1])
    assert torch.equal(pixels(image), expected[2])


def test_color_fix():
    got = run(PreprocessColorFix, image=FRAMES, reference=FRAMES[:1, ::2], variation=3.0, sharpness=1.2, resolution=0)[
        0
    ]
    settings = ColorFixSettings(variation=3.0, sharpness=1.2)
    assert torch.equal(pixels(got), color_fix(pixels(FRAMES), pixels(FRAMES[:1, ::2]), settings))


def test_stereo_depth():
    values: dict[str, Any] = {"method": "SGBM", "max_disparity": 16, "block": 5, "percentile": 99.0}
    hint, found = run(PreprocessStereoDepth, left=FRAMES.roll(3, 2), right=FRAMES, resolution=0, **values)
    expected = stereo_depth(pixels(FRAMES.roll(3, 2)), pixels(FRAMES), StereoSettings(**values))
    assert torch.equal(pixels(hint), expected[0]) and torch.equal(found, expected[1])
    assert found.mean() > 0.5
    assert run(PreprocessStereoDepth, left=FRAMES, right=FRAMES, resolution=48, **values)[0].shape == (3, 48, 64, 3)


def test_optical_flow():
    values: dict[str, Any] = {"preset": "fast", "direction": "forward", "full_color": 4.0}
    alone = run(PreprocessOpticalFlow, image=FRAMES, resolution=0, **values)[0]
    assert torch.equal(pixels(alone), flow_hint(pixels(FRAMES), None, FlowSettings(**values)))
    paired = run(PreprocessOpticalFlow, image=FRAMES[:2], following=FRAMES[1:], resolution=0, **values)[0]
    assert torch.equal(paired, alone[:2])
    with pytest.raises(HintError, match="one picture"):
        run(PreprocessOpticalFlow, image=FRAMES[:1], resolution=0, **values)
