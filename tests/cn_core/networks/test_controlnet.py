"""The trainable copy against diffusers' ControlNetModel with the same weights, and what the paper says of its start."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.files.keymaps import rename
from controlnet_kit.cn_core.files.keymaps.controlnet import controlnet_keys
from controlnet_kit.cn_core.files.keymaps.unet import unet_keys
from controlnet_kit.cn_core.modulation.residuals import scale
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.unet import UNet

SIZES = [pytest.param(1, (16, 16), id="one"), pytest.param(2, (17, 15), id="two, odd size")]
FRESH = ("input_hint_block.", "zero_convs.", "middle_block_out.")


def flat(residuals):
    """Down and middle in one list."""
    return [*residuals.down, residuals.mid]


@pytest.fixture
def twins(narrow, randomise, diffusers_controlnet):
    """Our ControlNet and diffusers' one with the same weights."""
    ours, theirs = randomise(ControlNet(narrow)), diffusers_controlnet(narrow)
    theirs.load_state_dict(rename(ours.state_dict(), controlnet_keys(narrow)))
    return ours, theirs


@pytest.mark.parametrize(("batch", "size"), SIZES)
def test_residuals_are_those_of_diffusers(narrow, twins, inputs, assert_same, batch, size):
    ours, theirs = twins
    given = inputs(narrow, batch, size)
    with torch.no_grad():
        found = ours(*given.ours, ours.encode_hint(given.hint), given.y)
        down, mid = theirs(given.x, given.timesteps, controlnet_cond=given.hint, **given.theirs)
    assert_same(flat(found), [*down, mid])


def test_gradients_are_those_of_diffusers(narrow, twins, inputs, assert_same, gradients):
    ours, theirs = twins
    given, keys = inputs(narrow, 2, (9, 8)), controlnet_keys(narrow)
    found = gradients(ours, flat(ours(*given.ours, ours.encode_hint(given.hint), given.y)))
    down, mid = theirs(given.x, given.timesteps, controlnet_cond=given.hint, **given.theirs)
    expected = gradients(theirs, [*down, mid])
    assert_same(found.values(), [expected[keys[name]] for name in found])


def test_the_controlled_unet_is_that_of_diffusers(narrow, twins, randomise, inputs, diffusers_unet, assert_same):
    """Both networks together at strength 0.7, at an odd size."""
    (ours, theirs), unet, their_unet = twins, randomise(UNet(narrow)), diffusers_unet(narrow)
    their_unet.load_state_dict(rename(unet.state_dict(), unet_keys(narrow)))
    given = inputs(narrow, 2, (17, 15))
    with torch.no_grad():
        residuals = ours(*given.ours, ours.encode_hint(given.hint), given.y)
        found = unet(*given.ours, given.y, scale(residuals, 0.7))
        down, mid = theirs(given.x, given.timesteps, controlnet_cond=given.hint, conditioning_scale=0.7, **given.theirs)
        expected = their_unet(
            given.x,
            given.timesteps,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            **given.theirs,
        )
    assert_same([found], expected)


@pytest.mark.parametrize("kind", ["released", "paper"])
def test_a_new_controlnet_is_exactly_silent(narrow, randomise, inputs, kind):
    unet = randomise(UNet(narrow))
    control, given = ControlNet.from_unet(unet, hint_encoder_kind=kind), inputs(narrow, 2, (8, 9))
    with torch.no_grad():
        residuals = control(*given.ours, control.encode_hint(given.hint), given.y)
        assert not any(residual.any() for residual in flat(residuals))
        assert torch.equal(unet(*given.ours, given.y, residuals), unet(*given.ours, given.y))


def test_a_new_controlnet_copies_the_encoder_and_shares_nothing(narrow, randomise):
    unet = randomise(UNet(narrow)).requires_grad_(False)
    control = ControlNet.from_unet(unet)
    theirs = unet.state_dict()
    copied = {key: value for key, value in control.state_dict().items() if not key.startswith(FRESH)}
    assert all(torch.equal(value, theirs[key]) for key, value in copied.items())
    storages = {value.untyped_storage().data_ptr() for value in theirs.values()}
    assert not any(value.untyped_storage().data_ptr() in storages for value in copied.values())
    assert all(parameter.requires_grad for parameter in control.parameters())


def test_gradient_reaches_first_the_zero_convolutions_then_the_copy_and_the_hint(narrow, randomise, inputs, gradients):
    control, given = ControlNet.from_unet(randomise(UNet(narrow))), inputs(narrow, 2, (8, 8))

    def step() -> dict[str, float]:
        """Largest gradient in each part; then the parameters move."""
        found = gradients(control, flat(control(*given.ours, control.encode_hint(given.hint), given.y)))
        with torch.no_grad():
            for name, parameter in control.named_parameters():
                parameter -= 0.1 * found[name]
        parts = {"zero": FRESH[1:], "hint": FRESH[:1], "copy": ("input_blocks.", "middle_block.", "time_embed.")}
        return {
            part: max(g.abs().max().item() for name, g in found.items() if name.startswith(prefixes))
            for part, prefixes in parts.items()
        }

    first, second, third = step(), step(), step()
    assert first["zero"] > 0 and first["hint"] == first["copy"] == 0
    # The hint encoder ends in a zero convolution of its own, so its first layers come one step later.
    assert second["copy"] > 0 and second["hint"] > 0
    assert third["hint"] > 0


def test_the_hint_is_encoded_once_for_many_steps_and_rows(narrow, randomise, inputs):
    control, given = randomise(ControlNet(narrow)), inputs(narrow, 2, (8, 8))
    with torch.no_grad():
        features = control.encode_hint(given.hint[:1])
        before = features.clone()
        one_row = control(*given.ours, features, given.y)
        every_row = control(*given.ours, features.expand(2, -1, -1, -1), given.y)
        assert torch.equal(features, before)
    assert all(torch.equal(a, b) for a, b in zip(flat(one_row), flat(every_row), strict=True))
