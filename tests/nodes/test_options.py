"""The options of `ApplyControlNet`: what each does to residuals, and what neutral ones must not do."""

from __future__ import annotations

import re
from typing import Any

import comfy.model_patcher
import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.modulation.settings import Modulation
from controlnet_kit.nodes.modulation import ControlNetFrames, ControlNetSaving, ControlNetStacking, ControlNetWeights
from controlnet_kit.nodes.schedule import ControlNetKeyframe, ControlNetSchedule, ControlNetWindow
from random_models import (
    SHAPES,
    control_tensors,
    controlnet_file,
    hint_image,
    host_load,
    host_model,
    our_apply,
    our_load,
    prompts,
    run,
    sample,
)
from torch import Tensor

TINY = SHAPES["tiny"]


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module", params=["ours", "the host's"])
def control(request: pytest.FixtureRequest) -> Any:
    """One network behind both sources: every option has to do the same to either."""
    name = controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors")
    return our_load(name) if request.param == "ours" else host_load(name)


def options(node: Any, **inputs: Any) -> Modulation:
    return run(node, **inputs)[0]


def controlled(
    model: comfy.model_patcher.ModelPatcher, control: Any, *, batch: int = 1, steps: int = 4, **inputs: Any
) -> Tensor:
    """The latents of a run with these inputs of ApplyControlNet."""
    return sample(model, *our_apply(*prompts(TINY), control, hint_image(), **inputs), batch=batch, steps=steps)


def asked(control: Any, sigma: float = 3.0, batch: int = 1, size: tuple[int, int] = (8, 8), **inputs: Any) -> Any:
    """The residuals of one evaluation, positive prompt first, negative second."""
    positive, _ = our_apply(*prompts(TINY), control, hint_image(), **inputs)
    ours = positive[0][1]["control"]
    model = host_model(TINY)
    generator = torch.Generator().manual_seed(5)
    latent = torch.randn(batch, 4, *size, generator=generator).repeat(2, 1, 1, 1)
    cond = {"c_crossattn": torch.randn(1, 7, TINY.config.context_dim, generator=generator).repeat(2 * batch, 1, 1)}
    transformer_options = {"cond_or_uncond": [0, 1], "uuids": [1, 2], "sample_sigmas": torch.tensor([9.0, 3.0, 1.0, 0])}
    with torch.inference_mode():
        ours.pre_run(model.model, model.model.model_sampling.percent_to_sigma)
        found = ours.get_control(latent, torch.full((2 * batch,), sigma), cond, 2, transformer_options)
        ours.cleanup()
    return found and [*found["output"], *found["middle"]]


def ratios(changed: list[Tensor], plain: list[Tensor]) -> list[float]:
    """By what each residual was multiplied; all its numbers by the same."""
    found = []
    for a, b in zip(changed, plain, strict=True):
        factor = float((a * b).sum() / (b * b).sum())
        torch.testing.assert_close(a, factor * b, atol=1e-5, rtol=1e-4)
        found.append(factor)
    return found


@pytest.mark.parametrize(
    "inputs",
    [
        {"options": Modulation()},
        {"effect_mask": torch.ones(1, 30, 20)},
        {"schedule": "1"},
        {"options": options(ControlNetWindow, start=0.0, end=100.0, unit="% of this run")},
        {"options": options(ControlNetFrames, hints="repeat_last", strengths="1")},
        {"options": options(ControlNetSaving, every_steps=1, log_sigma=0.0, free_after_window=True)},
    ],
)
def test_neutral_options_change_no_bit(model, control, inputs):
    assert torch.equal(controlled(model, control, **inputs), controlled(model, control))


@pytest.mark.parametrize(
    "inputs",
    [
        {"effect_mask": torch.zeros(1, 30, 20)},
        {"schedule": "0"},
        {"options": options(ControlNetWindow, start=3.0, end=3.0, unit="steps of this run")},
        {"options": options(ControlNetFrames, hints="cycle", strengths="0")},
        {"options": Modulation(positive=0.0, negative=0.0)},
    ],
)
def test_what_is_off_is_no_control_to_the_bit(model, control, inputs):
    assert torch.equal(controlled(model, control, **inputs), sample(model, *prompts(TINY), steps=4))


@pytest.mark.parametrize(
    ("mode", "negative"), [("prompt is more important", 1.0), ("ControlNet is more important", 0.0)]
)
def test_control_modes_have_a1111s_curve_over_the_depth(control, mode, negative):
    count = len(TINY.config.skip_channels())
    expected = [0.825 ** (12 * (1 - place / count)) for place in range(count + 1)]
    changed, plain = asked(control, control_mode=mode), asked(control)
    as_many = asked(control, options=Modulation(negative=negative))  # rows: another number of them is rounded otherwise
    assert ratios([r[:1] for r in changed], [r[:1] for r in as_many]) == pytest.approx(expected, abs=1e-4)
    sides = ratios([r[1:] for r in changed], [r[1:] for r in plain])
    assert sides == pytest.approx([negative * factor for factor in expected], abs=1e-4)


def test_bands_and_layers_multiply(control):
    count = len(TINY.config.skip_channels()) + 1
    layers = [1 + 0.1 * index for index in range(count)]
    bands = dict.fromkeys(("composition", "structure", "detail", "positive", "negative"), 1.0) | {"detail": 0.5}
    weights = options(ControlNetWeights, **bands, layers=", ".join(map(str, layers)))
    found = ratios(asked(control, options=weights), asked(control))
    expected = [value * (0.5 if index / (count - 1) < 1 / 3 else 1) for index, value in enumerate(layers)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_wrong_number_of_layers_is_said_before_the_first_step(model, control):
    weights = options(
        ControlNetWeights, composition=1.0, structure=1.0, detail=1.0, layers="1, 2", positive=1.0, negative=1.0
    )
    with pytest.raises(ControlNetKitError, match=re.escape("Got 2 weights of layers, but this network has")):
        controlled(model, control, options=weights)


def test_sides_are_told_by_the_node_not_by_the_hosts_order(model, control):
    # the guider that evaluates the negative prompt first must not turn the sides round
    settings = Modulation(positive=1.0, negative=0.0)
    positive, negative = our_apply(*prompts(TINY), control, hint_image(), options=settings)
    plain_positive, plain_negative = prompts(TINY)
    usual = sample(model, positive, negative)
    assert torch.equal(usual, sample(model, positive, plain_negative)) or torch.allclose(
        usual, sample(model, positive, plain_negative), atol=1e-4
    )
    assert not torch.allclose(usual, sample(model, plain_positive, negative), atol=1e-2)


def test_half_a_mask_acts_on_half_of_the_residuals(control):
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1
    masked, plain = asked(control, effect_mask=mask), asked(control)
    for a, b in zip(masked, plain, strict=True):
        quarter = a.shape[3] // 4
        assert torch.equal(a[..., :quarter], b[..., :quarter])
        assert not a[..., -quarter:].any()


def test_masks_and_strengths_of_single_frames(control):
    masks = torch.stack([torch.ones(16, 16), torch.zeros(16, 16)])
    frames = options(ControlNetFrames, hints="cycle", strengths="0.5, 2")
    plain = asked(control, batch=2)
    for a, b in zip(asked(control, batch=2, effect_mask=masks), plain, strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]])
        assert not a[[1, 3]].any()
    for a, b in zip(asked(control, batch=2, options=frames), plain, strict=True):
        torch.testing.assert_close(a, b * torch.tensor([0.5, 2, 0.5, 2]).view(-1, 1, 1, 1))


def test_the_schedule_follows_the_steps(control):
    settings = options(ControlNetSchedule, schedule="1@step 0, 0.5@step 1, 0@step 2", interpolation="linear")
    assert ratios(asked(control, sigma=9.0, options=settings), asked(control, sigma=9.0)) == pytest.approx([1.0] * 7)
    assert ratios(asked(control, sigma=3.0, options=settings), asked(control, sigma=3.0)) == pytest.approx([0.5] * 7)
    assert asked(control, sigma=1.0, options=settings) is None


def test_keyframes_are_the_schedule_as_nodes():
    chain = None
    for strength, at in ((1.0, 0.0), (0.5, 1.0), (0.0, 2.0)):
        chain = options(
            ControlNetKeyframe,
            strength=strength,
            at=at,
            unit="steps of this run",
            interpolation="cosine",
            options=chain,
        )
    text = options(ControlNetSchedule, schedule="1@step 0, 0.5@step 1, 0@step 2", interpolation="cosine")
    assert chain == text


def test_stacking_takes_the_stronger_one(model, control):
    first = our_apply(*prompts(TINY), control, hint_image(seed=40))
    largest = options(ControlNetStacking, stacking="max", calibrate=False)
    both = our_apply(*first, control, hint_image(), options=largest)
    twice = our_apply(*our_apply(*prompts(TINY), control, hint_image()), control, hint_image(), options=largest)
    assert not torch.equal(sample(model, *both), sample(model, *first))
    assert torch.equal(sample(model, *twice), controlled(model, control, steps=3))


def test_a_mask_gives_priority(model, control):
    mask = torch.zeros(1, 64, 64)
    first = our_apply(*prompts(TINY), control, hint_image(seed=40))
    priority = options(ControlNetStacking, stacking="mask", calibrate=False)
    nowhere = our_apply(*first, control, hint_image(), options=priority, effect_mask=mask)
    everywhere = our_apply(*first, control, hint_image(), options=priority, effect_mask=1 - mask)
    assert torch.equal(sample(model, *nowhere), sample(model, *first))
    assert torch.equal(sample(model, *everywhere), controlled(model, control, steps=3))
