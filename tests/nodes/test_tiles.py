"""Tiling extensions: they cut the hints of copied controls before a run, or put a tile's hint in during it."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import pytest
import torch
from controlnet_kit.cn_core.modulation.settings import Modulation, Reuse
from random_models import (
    SHAPES,
    control_tensors,
    controlnet_file,
    hint_image,
    host_apply,
    host_load,
    host_model,
    our_apply,
    our_load,
    prompts,
    sample,
)
from residual_recorder import by_hand
from torch import Tensor, nn

TINY = SHAPES["tiny"]


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module")
def name() -> str:
    return controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors")


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


def tiles(model: Any, name: str, kinds: list[str]) -> list[Tensor]:
    """Three tiles of 64x80 pixels out of 128x160, under a chain of controls."""
    canvas, tile, size = (160, 128), (80, 64), (10, 8)
    p, n = prompts(TINY)
    for seed, kind in enumerate(kinds):
        apply, load = (our_apply, our_load) if kind == "ours" else (host_apply, host_load)
        p, n = apply(p, n, load(name), hint_image(height=160, width=128, seed=seed), 0.9)
    regions = [(x, y, x + 64, y + 80) for x, y in ((0, 0), (56, 64), (64, 80))]
    cropped = [(tile_crop(p, region, canvas, tile), tile_crop(n, region, canvas, tile)) for region in regions]
    return [sample(model, positive, negative, size=size, steps=2) for positive, negative in cropped]


@pytest.mark.parametrize("chain", ["ours", "ours, ours", "core, ours", "ours, core"])
def test_tiled_upscaling_is_cores(model, name, chain):
    kinds = chain.split(", ")
    for ours, host in zip(tiles(model, name, kinds), tiles(model, name, ["core"] * len(kinds)), strict=True):
        assert torch.equal(ours, host)


def test_tiles_within_one_evaluation_do_not_share_reused_residuals(model, name):
    """Other extensions ask for tile after tile of one evaluation, and put each tile's hint into `cond_hint`."""
    reused = our_apply(*prompts(TINY), our_load(name), hint_image(), options=Modulation(reuse=Reuse(steps=2)))
    control, text = reused[0][0][1]["control"], reused[0][0][0]
    x = torch.randn(1, 4, 8, 8, generator=torch.manual_seed(1))
    control.pre_run(model.model, model.model.model_sampling.percent_to_sigma)
    for seed in range(3):
        tile = hint_image(height=64, width=64, seed=seed)
        control.cond_hint = tile.movedim(-1, 1)
        with torch.inference_mode():
            given = control.get_control(x, torch.tensor([3.0]), {"c_crossattn": text}, 1, {"uuids": [0]})
        found = [residual for key in given for residual in given[key]]
        host = host_apply(*prompts(TINY), host_load(name), tile)[0][0][1]["control"]
        for ours, expected in zip(found, by_hand(host, model, x, text, 3.0), strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
