"""`ApplyControlNet`: what it attaches, what it leaves alone, what it refuses."""

from __future__ import annotations

import logging
from pathlib import Path

import comfy.controlnet
import comfy.latent_formats
import comfy.model_patcher
import folder_paths
import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError, HintError
from controlnet_kit.cn_core.files.checkpoint import read, write
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.nodes.preflight import PreflightControlNet
from random_models import (
    SHAPES,
    control_tensors,
    controlnet_file,
    hint_image,
    host_model,
    our_apply,
    our_load,
    prompts,
    run,
    sample,
)
from torch import nn

TINY = SHAPES["tiny"]


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module")
def control() -> object:
    return our_load(controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors"))


def test_strength_zero_hands_back_the_conditioning(control):
    positive, negative = prompts(TINY)
    result = our_apply(positive, negative, control, hint_image(), strength=0.0)
    assert result[0] is positive
    assert result[1] is negative


@pytest.mark.parametrize("window", [(0.7, 0.2), (1.0, 0.0)])
def test_an_empty_window_is_no_control_and_said_once(model, control, caplog, window):
    with caplog.at_level(logging.WARNING, logger="controlnet_kit"):
        conditionings = our_apply(*prompts(TINY), control, hint_image(), 1.0, *window)
    assert torch.equal(sample(model, *conditionings, steps=5), sample(model, *prompts(TINY), steps=5))
    start, end = window
    assert [record.getMessage() for record in caplog.records] == [
        "tiny_random.safetensors: no control, none of the 5 steps of this run lies in its window, "
        f"schedule {start:g} to {end:g}. Widen it, or give it in steps or in percent of the run (ControlNet Window)."
    ]


def test_strength_and_window_as_the_file_recommends_them(model, control):
    name = controlnet_file(control_tensors(TINY.config), "tiny_recommended.safetensors")
    path = Path(folder_paths.get_full_path_or_raise("controlnet", name))
    write(path, read(path).tensors, ControlNetMetadata(strength=0.6, end_percent=0.5).to_strings())
    told, hint = our_load(name), hint_image()

    def sampled(one, *numbers, **settings):
        return sample(model, *our_apply(*prompts(TINY), one, hint, *numbers, **settings))

    wanted = sampled(control, 0.6, 0.0, 0.5)
    assert torch.equal(sampled(told, 1.0, 0.0, 1.0, recommended=True), wanted)
    assert torch.equal(sampled(control, 0.6, 0.0, 0.5, recommended=True), wanted)
    assert torch.equal(sampled(told, 1.0, 0.0, 1.0), sampled(control, 1.0, 0.0, 1.0))
    given, _ = our_apply(*prompts(TINY), told, hint, 1.0)
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    report, _ = run(
        PreflightControlNet, model=model, positive=given, steps=20, scheduler="normal", denoise=1.0, latent=latent
    )
    assert "recommends strength 0.6" in str(report)


def test_entries_with_the_same_past_share_one_control(control):
    positive, negative = prompts(TINY)
    first = our_apply(positive + positive, negative, control, hint_image())
    used = {entry["control"] for conditioning in first for _, entry in conditioning}
    assert len(used) == 1
    second = our_apply(first[0], negative, control, hint_image())
    assert second[0][0][1]["control"] is second[0][1][1]["control"] is not second[1][0][1]["control"]
    assert second[0][0][1]["control"].previous_controlnet in used
    assert second[1][0][1]["control"].previous_controlnet is None
    assert "control" not in positive[0][1]
    assert control.previous_controlnet is None
    assert control.cond_hint_original is None


def test_alpha_and_grey_are_taken_for_what_they_are(model, control):
    grey = hint_image(channels=1)
    colour = grey.expand(-1, -1, -1, 3)
    alpha = (hint_image(channels=1, seed=4) > 0.5).float()
    expected = sample(model, *our_apply(*prompts(TINY), control, colour * alpha))
    assert torch.equal(sample(model, *our_apply(*prompts(TINY), control, grey * alpha)), expected)
    assert torch.equal(sample(model, *our_apply(*prompts(TINY), control, torch.cat([colour, alpha], -1))), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((2, 8, 8, 3), float("nan")), "NaN or infinite values in picture 0, 1 of its batch"),
        (torch.zeros(0, 8, 8, 3), r"The image is empty: \(0, 8, 8, 3\)"),
        (torch.zeros(1, 8, 8, 5), "The image has 5 channels"),
    ],
)
def test_hints_that_cannot_be_used_are_refused(control, image, message):
    with pytest.raises(HintError, match=message):
        our_apply(*prompts(TINY), control, image)


def test_a_missing_vae_is_refused_here_and_not_in_the_sampler():
    latent_control = comfy.controlnet.ControlNet(nn.Identity(), latent_format=comfy.latent_formats.SD3())
    with pytest.raises(ControlNetKitError, match="connect the `vae` of ApplyControlNet"):
        our_apply(*prompts(TINY), latent_control, hint_image())
