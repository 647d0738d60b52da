"""Both readings of the paper's tiny network (the released one is held to diffusers' in test_controlnet)."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.hint_encoder import hint_encoder, initialise_
from torch import nn

KINDS = pytest.mark.parametrize("kind", ["released", "paper"])


def convolutions(encoder: nn.Sequential) -> list[nn.Conv2d]:
    """Its convolutions, in order."""
    return [layer for layer in encoder if isinstance(layer, nn.Conv2d)]


@KINDS
@pytest.mark.parametrize("size", [(64, 64), (136, 120), (8, 24)])
def test_features_have_the_size_of_the_latent(kind, size):
    with torch.no_grad():
        features = hint_encoder(kind, 3, 64, Backend())(torch.rand(2, 3, *size))
    assert features.shape == (2, 64, size[0] // 8, size[1] // 8)


@KINDS
def test_hints_may_have_other_channels(kind):
    assert convolutions(hint_encoder(kind, 6, 64, Backend()))[0].in_channels == 6


@KINDS
def test_a_new_one_is_silent_but_its_body_is_not(kind):
    torch.manual_seed(0)
    encoder = hint_encoder(kind, 3, 64, Backend())
    initialise_(encoder)
    with torch.no_grad():
        assert not encoder(torch.rand(1, 3, 32, 32)).any()
        assert encoder[:-1](torch.rand(1, 3, 32, 32)).any()


@KINDS
def test_a_line_leaves_its_trace_in_the_body_of_a_new_one(kind):
    torch.manual_seed(0)
    encoder = hint_encoder(kind, 3, 64, Backend())
    initialise_(encoder)
    line = torch.zeros(1, 3, 32, 32)
    line[..., 16] = 1
    with torch.no_grad():
        assert (encoder[:-1](line) - encoder[:-1](torch.zeros_like(line))).abs().max() > 0.1


def test_paper_as_described():
    """Four layers of 4x4 kernels, 16-32-64-128 channels, ReLU, Gaussian weights."""
    torch.manual_seed(0)
    encoder = hint_encoder("paper", 3, 64, Backend())
    initialise_(encoder)
    *body, last = convolutions(encoder)
    assert [layer.out_channels for layer in body] == [16, 32, 64, 128]
    assert {layer.kernel_size for layer in body} == {(4, 4)}
    assert sum(isinstance(layer, nn.ReLU) for layer in encoder) == 4
    assert last.kernel_size == (1, 1)
    weight = body[-1].weight.detach().flatten()
    assert abs(weight.std() / (2 / (64 * 16)) ** 0.5 - 1) < 0.02
    assert (weight.abs() < weight.std()).float().mean() == pytest.approx(0.683, abs=0.01)  # a Gaussian's share


@KINDS
def test_a_shift_of_the_hint_by_eight_pixels_shifts_the_features_by_one(kind):
    torch.manual_seed(0)
    encoder = hint_encoder(kind, 3, 8, Backend())
    hint = torch.zeros(1, 3, 128, 128)
    hint[:, :, 48:72, 40:64] = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        still, shifted = encoder(hint), encoder(hint.roll((8, 16), (2, 3)))
    torch.testing.assert_close(still.roll((1, 2), (2, 3))[..., 5:12, 5:12], shifted[..., 5:12, 5:12])
