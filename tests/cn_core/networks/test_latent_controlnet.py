"""A ControlNet whose hint is a latent, against an ordinary one that gets that latent for the noisy one."""

from __future__ import annotations

import torch
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.latent_controlnet import LatentControlNet


@torch.inference_mode()
def test_the_hint_takes_the_place_of_the_noise(narrow, randomise, inputs):
    ordinary, given = randomise(ControlNet(narrow)), inputs(narrow, 2, (16, 8))
    network = LatentControlNet(narrow)
    own = {key: tensor for key, tensor in ordinary.state_dict().items() if not key.startswith("input_hint_block.")}
    network.load_state_dict(own)
    latent = torch.randn(1, 4, 16, 8)
    assert network.encode_hint(latent) is latent
    found = network(*given.ours, latent, given.y)
    nothing = torch.zeros(1, narrow.model_channels, 16, 8)
    expected = ordinary(latent.repeat(2, 1, 1, 1), *given.ours[1:], nothing, given.y)
    assert torch.equal(found.mid, expected.mid)
    assert all(torch.equal(a, b) for a, b in zip(found.down, expected.down, strict=True))
    other = network(torch.zeros_like(given.x), *given.ours[1:], latent, given.y)
    assert torch.equal(other.mid, found.mid)
