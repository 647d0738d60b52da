"""The locked copy against diffusers' UNet2DConditionModel with the same weights, and what holds by itself."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.files.keymaps import rename
from controlnet_kit.cn_core.files.keymaps.unet import unet_keys
from controlnet_kit.cn_core.modulation.residuals import Residuals
from controlnet_kit.cn_core.networks.config import UNetConfig
from controlnet_kit.cn_core.networks.unet import UNet

SIZES = [pytest.param(1, (16, 16), id="one"), pytest.param(2, (17, 15), id="two, odd size")]


@pytest.mark.parametrize(("batch", "size"), SIZES)
def test_output_is_that_of_diffusers(narrow, randomise, inputs, diffusers_unet, assert_same, batch, size):
    ours, theirs = randomise(UNet(narrow)), diffusers_unet(narrow)
    theirs.load_state_dict(rename(ours.state_dict(), unet_keys(narrow)))
    given = inputs(narrow, batch, size)
    with torch.no_grad():
        assert_same([ours(*given.ours, given.y)], theirs(given.x, given.timesteps, **given.theirs))


def test_gradients_are_those_of_diffusers(narrow, randomise, inputs, diffusers_unet, assert_same, gradients):
    ours, theirs, keys = randomise(UNet(narrow)), diffusers_unet(narrow), unet_keys(narrow)
    theirs.load_state_dict(rename(ours.state_dict(), keys))
    given = inputs(narrow, 2, (9, 8))
    found = gradients(ours, [ours(*given.ours, given.y)])
    expected = gradients(theirs, theirs(given.x, given.timesteps, **given.theirs))
    assert_same(found.values(), [expected[keys[name]] for name in found])


def test_zero_residuals_change_nothing(narrow, randomise, inputs):
    unet, given = randomise(UNet(narrow)), inputs(narrow, 2, (8, 10))
    with torch.no_grad():
        encoded = unet.encode(*given.ours, y=given.y)
        zeros = Residuals(down=encoded.skips, mid=encoded.mid).map(torch.zeros_like)
        assert torch.equal(unet(*given.ours, given.y, zeros), unet(*given.ours, given.y))


def test_skips_have_the_channels_that_the_configuration_says(narrow, inputs):
    with torch.no_grad():
        encoded = UNet(narrow).encode(*inputs(narrow).ours, y=inputs(narrow).y)
    assert [skip.shape[1] for skip in encoded.skips] == narrow.skip_channels()
    assert encoded.mid.shape[1] == narrow.middle_channels


def test_residuals_of_a_shallower_network_are_refused(narrow, inputs):
    unet, given = UNet(narrow), inputs(narrow)
    with torch.no_grad():
        encoded = unet.encode(*given.ours, y=given.y)
        with pytest.raises(ValueError, match="shorter"):
            unet.decode(encoded, given.context, Residuals(down=encoded.skips[:-1], mid=encoded.mid))


def test_a_network_with_label_embedding_asks_for_y(inputs):
    config = UNetConfig(
        model_channels=32, channel_mult=(1,), num_res_blocks=(1,), transformer_depth=(0,), adm_in_channels=56
    )
    with pytest.raises(ValueError, match="takes a vector y of width 56"):
        UNet(config)(*inputs(config).ours)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_channels": 40}, "multiple of 32.*40"),
        ({"channel_mult": (1, 2)}, r"one entry per level, got \(1, 2\)"),
        ({"model_channels": 224}, "channels do not divide into 3 attention heads"),
        ({"model_channels": 224, "transformer_depth": (0, 0, 0, 0), "channel_mult": (1, 1, 1, 1)}, "224 channels"),
    ],
)
def test_impossible_configurations_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**values)
