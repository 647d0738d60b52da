"""Areas and tiles: each sees its own part of the hint and of the effect mask, and the rest stays as core has it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import comfy.model_patcher
import comfy.utils
import pytest
import torch
from controlnet_kit.cn_core.image import resize_hint
from controlnet_kit.cn_core.modulation.settings import Modulation, Reuse
from controlnet_kit.nodes.apply import RESIZES, ApplyControlNet
from random_models import (
    SHAPES,
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
from torch import Tensor, nn

import nodes

TINY = SHAPES["tiny"]
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
    model: Any,
    positive: Any,
    negative: Any,
    control: Any,
    image: Tensor,
    *,
    size: tuple[int, int],
    batch: int = 1,
    steps: int = 2,
    **inputs: Any,
) -> list[Chunk]:
    """What each prompt got in a run with `model` connected."""
    *prompts, patched = with_model(model, positive, negative, control, image, **inputs)
    changed, found, _ = recorded(*prompts, prompts=TOKENS)
    sample(patched, *changed, batch=batch, size=size, steps=steps)
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


@contextmanager
def counted(module: nn.Module) -> Generator[list[int]]:
    """The batch sizes that `module` was called with."""
    batches: list[int] = []
    handle = module.register_forward_hook(lambda _, inputs, __: batches.append(inputs[0].shape[0]))
    yield batches
    handle.remove()


LAYOUTS = {
    "one": ((17, 15), {"left": (9, 7, 8, 0)}, in_area),
    "overlapping": ((12, 16), {"left": (12, 10, 0, 0), "right": (8, 9, 3, 7)}, in_area),
    "equal sizes": ((12, 16), {"left": (12, 8, 0, 0), "right": (12, 8, 0, 8)}, in_area),
    "beyond the edge": (
        (12, 11),
        {"left": (12, 8, 0, 0), "right": (12, 6, 0, 5)},
        lambda n, a: in_area(n, (20, *a[1:])),
    ),
    "fractions": (
        (17, 15),
        {"left": (8, 15, 0, 0), "right": (4, 8, 10, 7)},
        lambda n, a: in_part(n, *((0.5, 1.0, 0.0, 0.0) if n == "left" else (0.25, 0.5, 0.6, 0.45))),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_area_sees_its_part_of_the_hint(model, name, layout):
    """As core's control for that area alone with the hint cut out by hand; its negative counterpart likewise."""
    size, areas, prompt = LAYOUTS[layout]
    image = hint_image(height=8 * size[0], width=8 * size[1])
    positive = PROMPTS["whole"] + [pair for each, area in areas.items() for pair in prompt(each, area)]
    found = watched(model, positive, PROMPTS["negative"], our_load(name), image, size=size)
    whole = next(chunk.x for chunk in found if chunk.prompt == "whole")
    counterparts = 0
    for chunk in (chunk for chunk in found if chunk.evaluation <= max(c.evaluation for c in found) // 2):
        area = area_of(chunk, found, areas)
        counterparts += chunk.prompt == "negative" and area is not None
        shape = size if area is None else area[:2]
        assert chunk.x.shape[2:] == torch.Size(shape)
        host = hand_cut(host_load, name, cut(image, area))
        assert_close(chunk.residuals, by_hand(host, model, chunk.x, chunk.text, chunk.sigma))
        if area is not None and chunk.sigma == found[0].sigma:
            assert torch.equal(chunk.x, cut(whole.movedim(1, -1), area, 1).movedim(-1, 1))
    assert counterparts >= len(areas)
    assert (layout == "equal sizes") == any(chunk.beside == 4 for chunk in found)


def test_without_the_model_areas_are_cores(model, name):
    size, areas, prompt = LAYOUTS["overlapping"]
    positive = PROMPTS["whole"] + [pair for each, area in areas.items() for pair in prompt(each, area)]
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
    size, areas, prompt = LAYOUTS["overlapping"]
    image = hint_image(height=8 * size[0], width=8 * size[1])
    mask = comfy.utils.common_upscale(hint_image(1, 3, 4)[..., 0][:, None], 8 * size[1], 8 * size[0], "bilinear", "")[
        :, 0
    ]
    positive = PROMPTS["whole"] + [pair for each, area in areas.items() for pair in prompt(each, area)]
    found = watched(model, positive, PROMPTS["negative"], load(name), image, size=size, effect_mask=mask)
    for chunk in found[: len(found) // 2]:
        area = area_of(chunk, found, areas)
        alone = hand_cut(our_load, name, cut(image, area), effect_mask=cut(mask, area))
        assert_close(chunk.residuals, by_hand(alone, model, chunk.x, chunk.text, chunk.sigma))


def test_masks_and_hints_of_a_batch_in_areas(model, name):
    """Two latents with a hint and a mask each, in two areas of the same size that are evaluated together."""
    size, areas, prompt = LAYOUTS["equal sizes"]
    image = hint_image(2, height=8 * size[0], width=8 * size[1])
    masks = torch.stack([torch.ones(96, 128), torch.linspace(0, 1, 128).repeat(96, 1)])
    positive = PROMPTS["whole"] + [pair for each, area in areas.items() for pair in prompt(each, area)]
    found = watched(model, positive, PROMPTS["negative"], our_load(name), image, size=size, batch=2, effect_mask=masks)
    for chunk in found[: len(found) // 2]:
        area = area_of(chunk, found, areas)
        assert chunk.x.shape[0] == 2
        for row in range(2):
            one = slice(row, row + 1)
            alone = hand_cut(our_load, name, cut(image[one], area), effect_mask=cut(masks[one], area))
            expected = by_hand(alone, model, chunk.x[one], chunk.text[one], chunk.sigma)
            assert_close([residual[one] for residual in chunk.residuals or []], expected)


def test_areas_with_one_side_only(model, name):
    """Counterparts of an area carry the area's uuid, and the mark of the other side."""
    size, areas, prompt = LAYOUTS["equal sizes"]
    image = hint_image(height=8 * size[0], width=8 * size[1])
    positive = PROMPTS["whole"] + [pair for each, area in areas.items() for pair in prompt(each, area)]
    negative = PROMPTS["negative"] + in_area("other negative", (6, 5, 2, 2))
    mode = {"control_mode": "ControlNet is more important"}
    found = watched(model, positive, negative, our_load(name), image, size=size, **mode)
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
        found = watched(model, PROMPTS["whole"] + masked, PROMPTS["negative"], our_load(name), image, size=size)
        chunk = next(chunk for chunk in found if chunk.prompt == "left")
        assert chunk.x.shape[2:] == torch.Size(size if area is None else area[:2])
        host = hand_cut(host_load, name, cut(image, area))
        assert_close(chunk.residuals, by_hand(host, model, chunk.x, chunk.text, chunk.sigma))


@pytest.mark.parametrize("resize_mode", ["as ComfyUI", "stretch", "crop", "fill"])
def test_a_hint_of_another_size_is_laid_over_the_whole_picture(model, name, resize_mode):
    """Resizing comes first, then the cut: an area sees its part of what the whole picture gets."""
    size, areas, prompt = LAYOUTS["one"]
    image, pixels = hint_image(height=100, width=200), (8 * size[0], 8 * size[1])
    positive = PROMPTS["whole"] + prompt("left", areas["left"])
    found = watched(model, positive, PROMPTS["negative"], our_load(name), image, size=size, resize_mode=resize_mode)
    chunk = next(chunk for chunk in found if chunk.prompt == "left")
    if (mode := RESIZES[resize_mode]) is None:
        whole = comfy.utils.common_upscale(image.movedim(-1, 1), pixels[1], pixels[0], "nearest-exact", "center")
    else:
        whole = resize_hint(image.movedim(-1, 1), pixels, mode, "auto")
    host = hand_cut(host_load, name, cut(whole.movedim(1, -1), areas["left"]))
    assert_close(chunk.residuals, by_hand(host, model, chunk.x, chunk.text, chunk.sigma))


def test_65_by_63_latent(model, name):
    """An area that no power of two divides, at the lower right."""
    size, area = (65, 63), (23, 37, 42, 26)
    image = hint_image(height=8 * size[0], width=8 * size[1])
    positive = PROMPTS["whole"] + in_area("left", area)
    found = watched(model, positive, PROMPTS["negative"], our_load(name), image, size=size, steps=1)
    chunk = next(chunk for chunk in found if chunk.prompt == "left")
    host = hand_cut(host_load, name, cut(image, area))
    assert_close(chunk.residuals, by_hand(host, model, chunk.x, chunk.text, chunk.sigma))


def test_each_area_is_encoded_once_over_queue_runs(model, name):
    size, areas, prompt = LAYOUTS["overlapping"]
    positive = PROMPTS["whole"] + [pair for each, area in areas.items() for pair in prompt(each, area)]
    control = our_load(name)
    *prompts, patched = with_model(model, positive, PROMPTS["negative"], control, hint_image(height=96, width=128))
    with counted(control.source.network.input_hint_block) as batches:
        first, again = (sample(patched, *prompts, size=size) for _ in range(2))
    assert len(batches) == 3
    assert torch.equal(first, again)


def tile_crop(prompts: Any, region: tuple[int, int, int, int], canvas: tuple[int, int], tile: tuple[int, int]) -> Any:
    """What tiled upscalers do before they sample a tile: copy every control of the chain, and cut its hint.

    The region is left, top, right, bottom in the pixels of the canvas; sizes are height, width.
    """

    def hint(whole: Tensor) -> Tensor:
        y, x = whole.shape[2] / canvas[0], whole.shape[3] / canvas[1]
        left, top, right, bottom = (round(side * (x, y)[index % 2]) for index, side in enumerate(region))
        part = whole[:, :, top:bottom, left:right]
        return nn.functional.interpolate(part, size=tile, mode="bicubic").clamp(0, 1)

    def copied(control: Any) -> Any:
        if control is None:
            return None
        copy = control.copy()
        copy.cond_hint_original = hint(control.cond_hint_original)
        return copy.set_previous_controlnet(copied(control.previous_controlnet))

    return [[tokens, {**entry, "control": copied(entry["control"])}] for tokens, entry in prompts]


@pytest.mark.parametrize("chain", ["ours", "ours, ours", "core, ours", "ours, core"])
def test_tiled_upscaling_is_cores(model, name, chain):
    canvas, tile = (160, 128), (80, 64)

    def tiles(kinds: list[str]) -> list[Tensor]:
        prompts: Any = (PROMPTS["whole"], PROMPTS["negative"])
        for seed, kind in enumerate(kinds):
            apply, load = (our_apply, our_load) if kind == "ours" else (host_apply, host_load)
            prompts = apply(*prompts, load(name), hint_image(height=160, width=128, seed=seed), 0.9)
        corners = ((0, 0), (56, 64), (64, 80))
        return [
            sample(
                model,
                *(tile_crop(each, (x, y, x + 64, y + 80), canvas, tile) for each in prompts),
                size=(10, 8),
                steps=2,
            )
            for x, y in corners
        ]

    kinds = chain.split(", ")
    for ours, host in zip(tiles(kinds), tiles(["core"] * len(kinds)), strict=True):
        assert torch.equal(ours, host)


def test_tiles_within_one_evaluation_do_not_share_reused_residuals(model, name):
    """Tiling extensions ask for tile after tile of one evaluation, and put each tile's hint into `cond_hint`."""
    prompts = our_apply(
        PROMPTS["whole"], PROMPTS["negative"], our_load(name), hint_image(), options=Modulation(reuse=Reuse(steps=2))
    )
    control = prompts[0][0][1]["control"]
    x, text = torch.randn(1, 4, 8, 8, generator=torch.manual_seed(1)), TOKENS["whole"]
    control.pre_run(model.model, model.model.model_sampling.percent_to_sigma)
    for seed in range(3):
        tile = hint_image(height=64, width=64, seed=seed)
        control.cond_hint = tile.movedim(-1, 1)
        with torch.inference_mode():
            given = control.get_control(x, torch.tensor([3.0]), {"c_crossattn": text}, 1, {"uuids": [0]})
        found = [residual for key in given for residual in given[key]]
        assert_close(found, by_hand(hand_cut(host_load, name, tile), model, x, text, 3.0))
