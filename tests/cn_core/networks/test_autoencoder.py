"""The embedded base's autoencoder: shapes, determinism, and that it can learn."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.networks.autoencoder import LATENT_CHANNELS, Autoencoder


@pytest.mark.parametrize(("batch", "size"), [(1, (64, 64)), (2, (40, 72)), (1, (8, 8))])
def test_latents_are_an_eighth_of_the_picture(batch, size):
    model = Autoencoder()
    with torch.no_grad():
        latent = model.encode(torch.rand(batch, 3, *size) * 2 - 1)
        assert latent.shape == (batch, LATENT_CHANNELS, size[0] // 8, size[1] // 8)
        assert model.decode(latent).shape == (batch, 3, *size)


def test_encoding_is_deterministic_and_rows_do_not_mix():
    model, pixels = Autoencoder(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        both = model.encode(pixels)
        torch.testing.assert_close(model.encode(pixels[1:]), both[1:])
        assert torch.equal(model.encode(pixels), both)


def test_it_learns_to_reconstruct():
    torch.manual_seed(0)
    model, pixels = Autoencoder(), torch.rand(2, 3, 16, 16) * 2 - 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss = (model.decode(model.encode(pixels)) - pixels).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
