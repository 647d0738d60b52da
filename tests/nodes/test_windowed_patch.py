"""The window, the mask and several hints of controls that patch the model."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
import torch
from comfy_extras import nodes_model_advanced
from controlnet_kit.cn_core.modulation.window import Window
from controlnet_kit.nodes.model_patches import ANIMA, QWEN, UNI3C, Z_IMAGE
from controlnet_kit.nodes.windowed_patch import WindowedPatch, latent_frames
from random_models import hint_image
from random_patches import (
    FRAMES,
    Patched,
    host_apply_patch,
    latent_shape,
    our_apply_patch,
    random_patched,
    sample_patched,
)
from torch import Tensor, nn

NEVER = Window(start=5, end=6, unit="step")


@pytest.fixture(scope="module", params=[Z_IMAGE, QWEN, UNI3C, ANIMA])
def patched(request: pytest.FixtureRequest) -> Patched:
    return random_patched(request.param)


class Recorder:
    """A patch that keeps the tokens it sees, and leaves them alone."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, arguments: Any, *_: Tensor, **__: Any) -> Any:
        tokens = arguments if isinstance(arguments, Tensor) else arguments["img"]  # of attention: the query's input
        self.seen.append(tokens.clone())
        return {"q": tokens} if isinstance(arguments, Tensor) else arguments


def added(patched: Patched, mask: Tensor | None, size: tuple[int, int]) -> Tensor:
    """What the control adds where it first acts, at the first step: R T h w D."""
    place, before, after = "attn1_patch" if patched.kind == ANIMA else "double_block", Recorder(), Recorder()
    model = patched.model.clone()
    model.set_model_patch(before, place)
    model = our_apply_patch(replace(patched, model=model), hint_image(), mask=mask)
    model.set_model_patch(after, place)
    sample_patched(model, latent_shape(patched.kind, size=size), steps=1)
    height, width = (-(-side // 2) for side in size)
    frames = FRAMES if patched.kind == UNI3C else 1
    tokens = (after.seen[0] - before.seen[0])[:, : frames * height * width]  # Z-Image fills up to 32
    return tokens.unflatten(1, (frames, height, width))


@contextlib.contextmanager
def calls(network: nn.Module) -> Generator[list[nn.Module]]:
    """Every layer of `network` that is called."""
    found: list[nn.Module] = []
    handles = [layer.register_forward_pre_hook(lambda layer, _: found.append(layer)) for layer in network.modules()]
    yield found
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("kind", [UNI3C, ANIMA])
@pytest.mark.parametrize("window", [(0.0, 0.45), (0.3, 0.75)])
def test_the_window_of_those_that_have_one(kind, window):
    patched = random_patched(kind)
    result = sample_patched(
        our_apply_patch(patched, hint_image(), 0.8, Window(start=window[0], end=window[1])), latent_shape(kind), steps=5
    )
    host = sample_patched(host_apply_patch(patched, hint_image(), 0.8, window), latent_shape(kind), steps=5)
    assert torch.equal(result, host)
    assert not torch.equal(
        result, sample_patched(host_apply_patch(patched, hint_image(), 0.8), latent_shape(kind), steps=5)
    )


def test_off(patched, caplog):
    shape, zeros = latent_shape(patched.kind), torch.zeros(1, 64, 64)
    bare = sample_patched(patched.model, shape)
    assert torch.equal(sample_patched(our_apply_patch(patched, hint_image(), 0.0), shape), bare)
    assert torch.equal(sample_patched(our_apply_patch(patched, hint_image(), mask=zeros), shape), bare)
    model = our_apply_patch(patched, hint_image(), window=NEVER)
    with calls(patched.control.patcher.model) as called, caplog.at_level(logging.WARNING, logger="controlnet_kit"):
        assert torch.equal(sample_patched(model, shape), bare)
    assert not called
    assert [record.getMessage() for record in caplog.records] == [
        f"{patched.control.name}: no control, no step of this run lies in its window ({NEVER})."
    ]


def test_outside_the_window_nothing_is_computed(patched):
    with calls(patched.control.patcher.model) as one:
        sample_patched(our_apply_patch(patched, hint_image()), latent_shape(patched.kind), steps=1)
    with calls(patched.control.patcher.model) as first_of_four:
        sample_patched(
            our_apply_patch(patched, hint_image(), window=Window(end=1, unit="step")),
            latent_shape(patched.kind),
            steps=4,
        )
    assert len(first_of_four) == len(one)


def test_a_noise_schedule_set_later_counts():
    anima = random_patched(ANIMA)
    window, node = Window(end=0.5), nodes_model_advanced.ModelSamplingAuraFlow()
    before = our_apply_patch(replace(anima, model=node.patch_aura(anima.model, 9.0)[0]), hint_image(), window=window)
    after = node.patch_aura(our_apply_patch(anima, hint_image(), window=window), 9.0)[0]
    expected = sample_patched(before, latent_shape(ANIMA), steps=5)
    assert torch.equal(sample_patched(after, latent_shape(ANIMA), steps=5), expected)


def test_a_mask_of_ones_is_none(patched):
    shape = latent_shape(patched.kind)
    masked = sample_patched(our_apply_patch(patched, hint_image(), 0.7, mask=torch.ones(1, 50, 70)), shape)
    assert torch.equal(masked, sample_patched(our_apply_patch(patched, hint_image(), 0.7), shape))


def test_half_a_mask_where_the_control_acts(patched):
    top = torch.zeros(1, 128, 120)
    top[:, :64] = 1
    everywhere, half = added(patched, None, (16, 15)), added(patched, top, (16, 15))
    assert everywhere.abs().amin(dim=(0, 1, 4)).max() > 0
    torch.testing.assert_close(half[:, :, :3], everywhere[:, :, :3])
    assert not half[:, :, 5:].any()
    grey = added(patched, torch.full((1, 8, 8), 0.25), (17, 15))
    torch.testing.assert_close(grey, 0.25 * added(patched, None, (17, 15)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Z_IMAGE, QWEN, ANIMA])
def test_a_mask_for_each_picture(kind):
    patched, shape = random_patched(kind), latent_shape(kind, batch=2)
    masks = torch.stack([torch.zeros(64, 64), torch.ones(64, 64)])
    result = sample_patched(our_apply_patch(patched, hint_image(), mask=masks), shape)
    assert torch.equal(result[0], sample_patched(patched.model, shape)[0])
    assert torch.equal(result[1], sample_patched(our_apply_patch(patched, hint_image()), shape)[1])


def test_masks_of_a_video():
    masks = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.4]).view(-1, 1, 1, 1)
    assert torch.allclose(latent_frames(masks, 3, 4).flatten(), torch.tensor([1.0, 0.5, 0.3]))
    assert latent_frames(masks[:1], 3, 4).flatten().tolist() == [1.0, 1.0, 1.0]
    assert latent_frames(masks, 1, 4).flatten().tolist() == [1.0]
    patched = random_patched(UNI3C)
    only_first = torch.cat([torch.ones(1, 64, 64), torch.zeros(8, 64, 64)])
    tokens = added(patched, only_first, (8, 8))
    torch.testing.assert_close(tokens[:, 0], added(patched, None, (8, 8))[:, 0])
    assert not tokens[:, 1:].any()


@pytest.mark.parametrize("kind", [Z_IMAGE, ANIMA])
def test_a_hint_for_each_picture(kind):
    patched, shape, hints = random_patched(kind), latent_shape(kind, batch=2), hint_image(2)
    result = sample_patched(our_apply_patch(patched, hints), shape)
    for row in range(2):
        alone = sample_patched(our_apply_patch(patched, hints[row : row + 1].repeat(2, 1, 1, 1)), shape)
        torch.testing.assert_close(result[row], alone[row], rtol=1e-4, atol=1e-4)
    assert not torch.equal(result[0], sample_patched(our_apply_patch(patched, hints.flip(0)), shape)[0])
    # without a negative prompt the host can do it too
    assert torch.equal(
        sample_patched(our_apply_patch(patched, hints), shape, cfg=1.0),
        sample_patched(host_apply_patch(patched, hints), shape, cfg=1.0),
    )


def test_the_same_again_after_a_cancel(patched):
    class Cancel:
        def __init__(self) -> None:
            self.blocks = 0

        def __call__(self, arguments: Any) -> Any:
            self.blocks += 1
            if self.blocks == 2:
                raise KeyboardInterrupt
            return arguments

    shape, mask = latent_shape(patched.kind), torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(1))
    model = our_apply_patch(patched, hint_image(), mask=mask)
    expected = sample_patched(model, shape)
    cancelled = model.clone()
    cancelled.set_model_patch(Cancel(), "mlp_patch" if patched.kind == ANIMA else "double_block")
    with pytest.raises(KeyboardInterrupt):
        sample_patched(cancelled, shape)
    listed = model.model_options["transformer_options"]["patches"].values()
    (patch,) = {patch for patches in listed for patch in patches if isinstance(patch, WindowedPatch)}
    assert patch.patch.strength == 1.0
    assert not patch.gains
    assert getattr(patch.patch, "temp_data", None) is None
    assert torch.equal(sample_patched(model, shape), expected)
