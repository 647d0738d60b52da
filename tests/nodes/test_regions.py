"""Areas and tiles: each sees its own part of the hint and of the effect mask, and the rest stays as core has it."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import comfy.utils
import pytest
import torch
from controlnet_kit.cn_core.image import resize_hint
from controlnet_kit.nodes.apply import RESIZES, ApplyControlNet
from random_models import (
    conditioning,
    control_tensors,
    controlnet_file,
    hint_image,
    host_apply,
    host_load,
    host_model,
    our_apply,
    our_load,
    run,
    sample,
)
from residual_recorder import Chunk, by_hand, recorded
from tiny_runs import TINY, counted
from torch import Tensor

import nodes

NAMES = ("whole", "negative", "left", "right", "other negative")
PROMPTS = {name: conditioning(TINY.config, seed) for seed, name in enumerate(NAMES, 10)}
TOKENS = {name: pairs[0][0] for name, pairs in PROMPTS.items()}
Area = tuple[int, int, int, int]
"""Height, width, top, left in latent positions."""


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module")
def name() -> str:
    return controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors")


def in_area(name: str, area: Area) -> Any:
    """A prompt for an area, by the host's node."""
    height, width, top, left = (8 * side for side in area)
    return nodes.ConditioningSetArea().append(PROMPTS[name], width, height, left, top, 1.0)[0]


def in_part(name: str, height: float, width: float, top: float, left: float) -> Any:
    """A prompt for a fraction of the picture, by the host's node."""
    return nodes.ConditioningSetAreaPercentage().append(PROMPTS[name], width, height, left, top, 1.0)[0]


def with_model(model: Any, positive: Any, negative: Any, control: Any, image: Tensor, **inputs: Any) -> Any:
    """Positive, negative and MODEL of ApplyControlNet."""
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0} | inputs
    sockets = {"positive": positive, "negative": negative, "control_net": control, "image": image, "model": model}
    return run(ApplyControlNet, **sockets, **settings)


def watched(
    model: Any, prompts: Any, control: Any, image: Tensor, size: tuple[int, int], *, batch: int = 1, **inputs: Any
) -> list[Chunk]:
    """What each prompt got in the first step, with `model` connected; `prompts` come beside one for all."""
    negative = PROMPTS["negative"] + inputs.pop("negative", [])
    *conditionings, patched = with_model(model, PROMPTS["whole"] + prompts, negative, control, image, **inputs)
    changed, found, _ = recorded(*conditionings, prompts=TOKENS)
    sample(patched, *changed, batch=batch, size=size, steps=1)
    return found


def cut(picture: Tensor, area: Area | None, scale: int = 8) -> Tensor:
    """That part of B h w or B h w C."""
    if area is None:
        return picture
    height, width, top, left = (scale * side for side in area)
    return picture[:, top : top + height, left : left + width]


def hand_cut(load: Any, name: str, image: Tensor, **inputs: Any) -> Any:
    """A control for one area alone, its hint cut out beforehand."""
    positive, _ = (our_apply if load is our_load else host_apply)(
        PROMPTS["whole"], PROMPTS["negative"], load(name), image, **inputs
    )
    return positive[0][1]["control"]


def area_of(chunk: Chunk, found: list[Chunk], areas: dict[str, Area]) -> Area | None:
    """By the prompt, or for the other side's counterpart by the uuid that the host copies with the area."""
    same = [other.prompt for other in found if other.uuid == chunk.uuid and other.prompt in areas]
    return areas[same[0]] if same else None


def assert_close(ours: list[Tensor] | None, expected: list[Tensor]) -> None:
    assert ours is not None
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


Layout = tuple[tuple[int, int], dict[str, Area], Any]
"""The latent's size, the area of each prompt, the prompts as the host's nodes make them."""
EQUAL: Layout = (
    (12, 16),
    {"left": (12, 8, 0, 0), "right": (12, 8, 0, 8)},
    in_area("left", (12, 8, 0, 0)) + in_area("right", (12, 8, 0, 8)),
)
OVERLAPPING: Layout = (
    (12, 16),
    {"left": (12, 10, 0, 0), "right": (8, 9, 3, 7)},
    in_area("left", (12, 10, 0, 0)) + in_area("right", (8, 9, 3, 7)),
)
ONE: Layout = ((17, 15), {"left": (9, 7, 8, 0)}, in_area("left", (9, 7, 8, 0)))
BEYOND: Layout = (
    (12, 11),
    {"left": (12, 8, 0, 0), "right": (12, 6, 0, 5)},
    in_area("left", (20, 8, 0, 0)) + in_area("right", (20, 6, 0, 5)),
)
FRACTIONS: Layout = (
    (17, 15),
    {"left": (8, 15, 0, 0), "right": (4, 8, 10, 7)},
    in_part("left", 0.5, 1.0, 0.0, 0.0) + in_part("right", 0.25, 0.5, 0.6, 0.45),
)
LARGE: Layout = ((65, 63), {"left": (23, 37, 42, 26)}, in_area("left", (23, 37, 42, 26)))


@pytest.mark.parametrize("layout", [EQUAL, OVERLAPPING, ONE, BEYOND, FRACTIONS, LARGE])
def test_each_area_sees_its_part_of_the_hint(model, name, layout):
    """As core's control for that area alone with the hint cut out by hand; its negative counterpart likewise."""
    size, areas, prompts = layout
    image = hint_image(height=8 * size[0], width=8 * size[1])
    found = watched(model, prompts, our_load(name), image, size)
    whole = next(chunk.x for chunk in found if chunk.prompt == "whole").movedim(1, -1)
    for chunk in found:
        area = area_of(chunk, found, areas)
        assert torch.equal(chunk.x, cut(whole, area, 1).movedim(-1, 1))
        host = hand_cut(host_load, name, cut(image, area))
        assert_close(chunk.residuals, by_hand(host, model, chunk.x, chunk.text, chunk.sigma))
    assert sum(chunk.prompt == "negative" for chunk in found) == 1 + len(areas)
    assert (layout is EQUAL) == any(chunk.beside == 4 for chunk in found)


def test_without_the_model_areas_are_cores(model, name):
    size, _, prompts = OVERLAPPING
    positive = PROMPTS["whole"] + prompts
    image = hint_image(height=90, width=70)
    ours = sample(model, *our_apply(positive, PROMPTS["negative"], our_load(name), image), size=size)
    assert torch.equal(
        ours, sample(model, *host_apply(positive, PROMPTS["negative"], host_load(name), image), size=size)
    )


def test_with_the_model_but_without_areas_nothing_changes(model, name):
    image = hint_image(height=90, width=70)
    positive, negative, patched = with_model(model, PROMPTS["whole"], PROMPTS["negative"], our_load(name), image)
    host = sample(model, *host_apply(PROMPTS["whole"], PROMPTS["negative"], host_load(name), image))
    assert torch.equal(sample(patched, positive, negative), host)


@pytest.mark.parametrize("load", [our_load, host_load])
def test_each_area_sees_its_part_of_the_mask(model, name, load):
    size, areas, prompts = OVERLAPPING
    image = hint_image(height=8 * size[0], width=8 * size[1])
    mask = comfy.utils.common_upscale(hint_image(1, 3, 4)[..., 0][:, None], 8 * size[1], 8 * size[0], "bilinear", "")[
        :, 0
    ]
    found = watched(model, prompts, load(name), image, size, effect_mask=mask)
    for chunk in found:
        area = area_of(chunk, found, areas)
        alone = hand_cut(our_load, name, cut(image, area), effect_mask=cut(mask, area))
        assert_close(chunk.residuals, by_hand(alone, model, chunk.x, chunk.text, chunk.sigma))


def test_masks_and_hints_of_a_batch_in_areas(model, name):
    """Two latents with a hint and a mask each, in two areas of the same size that are evaluated together."""
    size, areas, prompts = EQUAL
    image = hint_image(2, height=8 * size[0], width=8 * size[1])
    masks = torch.stack([torch.ones(96, 128), torch.linspace(0, 1, 128).repeat(96, 1)])
    found = watched(model, prompts, our_load(name), image, size, batch=2, effect_mask=masks)
    for chunk in found:
        area = area_of(chunk, found, areas)
        assert chunk.x.shape[0] == 2
        for row in range(2):
            one = slice(row, row + 1)
            alone = hand_cut(our_load, name, cut(image[one], area), effect_mask=cut(masks[one], area))
            expected = by_hand(alone, model, chunk.x[one], chunk.text[one], chunk.sigma)
            assert_close([residual[one] for residual in chunk.residuals or []], expected)


def test_areas_with_one_side_only(model, name):
    """Counterparts of an area carry the area's uuid, and the mark of the other side."""
    size, areas, prompts = EQUAL
    image = hint_image(height=8 * size[0], width=8 * size[1])
    negative = in_area("other negative", (6, 5, 2, 2))
    mode: dict[str, Any] = {"control_mode": "ControlNet is more important"}
    found = watched(model, prompts, our_load(name), image, size, negative=negative, **mode)
    assert {(chunk.prompt, chunk.controlled) for chunk in found} == {
        *((each, True) for each in ("whole", "left", "right")),
        *((each, False) for each in ("negative", "other negative")),
    }
    areas = {**areas, "other negative": (6, 5, 2, 2)}
    for chunk in (chunk for chunk in found if chunk.controlled):
        area = area_of(chunk, found, areas)
        alone = hand_cut(our_load, name, cut(image, area), **mode)
        assert_close(chunk.residuals, by_hand(alone, model, chunk.x, chunk.text, chunk.sigma))


def test_prompts_under_masks(model, name):
    """A mask alone leaves the prompt the whole picture; "mask bounds" makes an area of it."""
    size, image = (12, 16), hint_image(height=96, width=128)
    mask = torch.zeros(1, 96, 128)
    mask[:, 16:96, 48:128] = 1
    for bounds, area in (("default", None), ("mask bounds", (10, 10, 2, 6))):
        masked = nodes.ConditioningSetMask().append(PROMPTS["left"], mask, bounds, 1.0)[0]
        found = watched(model, masked, our_load(name), image, size)
        chunk = next(chunk for chunk in found if chunk.prompt == "left")
        assert chunk.x.shape[2:] == torch.Size(size if area is None else area[:2])
        host = hand_cut(host_load, name, cut(image, area))
        assert_close(chunk.residuals, by_hand(host, model, chunk.x, chunk.text, chunk.sigma))


@pytest.mark.parametrize("resize_mode", ["as ComfyUI", "stretch", "crop", "fill"])
def test_a_hint_of_another_size_is_laid_over_the_whole_picture(model, name, resize_mode):
    """Resizing comes first, then the cut: an area sees its part of what the whole picture gets."""
    size, areas, prompts = ONE
    image, pixels = hint_image(height=100, width=200), (8 * size[0], 8 * size[1])
    found = watched(model, prompts, our_load(name), image, size, resize_mode=resize_mode)
    chunk = next(chunk for chunk in found if chunk.prompt == "left")
    if (mode := RESIZES[resize_mode]) is None:
        whole = comfy.utils.common_upscale(image.movedim(-1, 1), pixels[1], pixels[0], "nearest-exact", "center")
    else:
        whole = resize_hint(image.movedim(-1, 1), pixels, mode, "auto")
    host = hand_cut(host_load, name, cut(whole.movedim(1, -1), areas["left"]))
    assert_close(chunk.residuals, by_hand(host, model, chunk.x, chunk.text, chunk.sigma))


def test_each_area_is_encoded_once_over_queue_runs(model, name):
    size, _, prompts = OVERLAPPING
    positive = PROMPTS["whole"] + prompts
    control = our_load(name)
    *prompts, patched = with_model(model, positive, PROMPTS["negative"], control, hint_image(height=96, width=128))
    with counted(control.source.network.input_hint_block) as batches:
        first, again = (sample(patched, *prompts, size=size) for _ in range(2))
    assert len(batches) == 3
    assert torch.equal(first, again)
