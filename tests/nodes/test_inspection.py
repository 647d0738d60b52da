"""What shows a control at work: preflight, effect map, strength sweep, fitted hints, masks from hints."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.nodes.effect_map import ControlNetEffectMap, ControlNetStrengthSweep, RecordControlNet
from controlnet_kit.nodes.fit import FitControlHint, MaskFromControlHint
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

import nodes

TINY = SHAPES["tiny"]
LATENT = {"samples": torch.zeros(1, 4, 8, 8)}


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module")
def control() -> Any:
    return our_load(controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors"))


def preflight(model: comfy.model_patcher.ModelPatcher, positive: Any, **inputs: Any) -> tuple[str, torch.Tensor]:
    settings = {"steps": 20, "scheduler": "normal", "denoise": 1.0, "latent": LATENT} | inputs
    return run(PreflightControlNet, model=model, positive=positive, **settings)


def test_preflight_says_what_will_happen(model, control):
    positive, _ = our_apply(*prompts(TINY), control, hint_image(height=64), 0.8, 0.0, 0.5, schedule="1@0%, 0.5@50%")
    report, hint = preflight(model, positive)
    assert report.splitlines()[:3] == [
        "tiny_random.safetensors: ControlNet, SD-shaped",
        "  acts in steps 0 to 9 (of 0 to 19), strength 0.8 to 0.44",
        "  1 hint(s) of 64x64 for a picture of 64x64",
    ]
    assert "WARNING" not in report
    assert torch.equal(hint, hint_image(height=64))


def test_preflight_steps_are_those_that_act(model, control):
    # 20 steps at denoise 0.4 begin after the first 60 % of the schedule: the window never opens
    positive, _ = our_apply(*prompts(TINY), control, hint_image(height=64), 1.0, 0.0, 0.5)
    report, _ = preflight(model, positive, denoise=0.4)
    assert "acts in none of the 20 steps" in report
    assert "WARNING: No control: none of the 20 steps lies in the window, schedule 0 to 0.5." in report


def test_preflight_warns_of_inverted_black_and_cut_hints(model, control):
    lines = torch.ones(1, 64, 64, 3)
    lines[:, ::8] = 0
    for image, warning in (
        (lines, "looks like black lines on white"),
        (torch.zeros(1, 64, 64, 3), "is black everywhere"),
        (hint_image(height=64, width=96), "The hint is 96x64: 32 of its columns will be cut off"),
    ):
        positive, _ = our_apply(*prompts(TINY), control, image)
        assert warning in preflight(model, positive)[0]


def test_preflight_warns_of_another_family(control):
    positive, _ = our_apply(*prompts(TINY), control, hint_image())
    report, _ = preflight(host_model(SHAPES["SDXL"]), positive)
    assert "WARNING: tiny_random.safetensors is an SD-shaped ControlNet (context 64); the model takes 2048" in report


def test_preflight_leaves_the_run_as_it_was(model, control):
    conditionings = our_apply(*prompts(TINY), control, hint_image())
    before = sample(model, *conditionings)
    preflight(model, conditionings[0])
    assert torch.equal(sample(model, *conditionings), before)


def test_the_effect_map_shows_where_a_mask_lets_control_act(model, control):
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1
    recorded = run(RecordControlNet)[0]
    conditionings = our_apply(*prompts(TINY), control, hint_image(), effect_mask=mask, options=recorded)
    with_record = sample(model, *conditionings)
    picture, table, report = run(ControlNetEffectMap, positive=conditionings[0], latent=LATENT)
    assert torch.equal(with_record, sample(model, *our_apply(*prompts(TINY), control, hint_image(), effect_mask=mask)))
    assert picture.shape == (1, 64, 64, 3)
    assert picture[..., :24, :].mean() > 0.1
    assert picture[..., 44:, :].mean() < 0.02
    assert table.shape[0] == 1
    assert len(report.splitlines()) == 2 + 6 + 1  # head, a line for each skip and one for the middle
    assert "sigma" in report


def test_the_effect_map_without_a_record_says_what_is_missing(model, control):
    conditionings = our_apply(*prompts(TINY), control, hint_image())
    sample(model, *conditionings)
    with pytest.raises(ControlNetKitError, match="nothing was recorded"):
        run(ControlNetEffectMap, positive=conditionings[0], latent=LATENT)


def test_a_sweep_is_the_single_pictures_in_one_batch(model, control):
    latent, options, strengths = run(ControlNetStrengthSweep, latent=LATENT, first=0.0, last=1.0, count=3)
    assert strengths == "0, 0.5, 1"
    positive, negative = our_apply(*prompts(TINY), control, hint_image(), options=options)
    with torch.inference_mode():
        swept = nodes.KSampler().sample(model, 5, 3, 4.0, "euler", "normal", positive, negative, latent)[0]["samples"]
    for index, strength in enumerate((0.0, 0.5, 1.0)):
        alone = sample(model, *our_apply(*prompts(TINY), control, hint_image(), strength))
        torch.testing.assert_close(swept[index : index + 1], alone, atol=2e-4, rtol=1e-3)


def test_a_fitted_hint_has_the_pictures_size():
    hint, resolution = run(
        FitControlHint, image=hint_image(height=512, width=768), latent=LATENT, resize_mode="crop", resampler="auto"
    )
    assert hint.shape == (1, 64, 64, 3)
    assert resolution == 64


def test_a_mask_from_a_hint_is_white_around_what_it_says():
    hint = torch.zeros(1, 64, 64, 3)
    hint[:, 30:34, 30:34] = 1
    (mask,) = run(MaskFromControlHint, image=hint, threshold=0.05, reach=4, feather=0.0)
    assert mask.shape == (1, 64, 64)
    assert mask[0, 27:37, 27:37].all()
    assert not mask[0, :20].any()
    with pytest.raises(ControlNetKitError, match=r"no pixel of the hint is brighter than 0\.05"):
        run(MaskFromControlHint, image=torch.zeros(1, 8, 8, 3), threshold=0.05, reach=4, feather=0.0)
