"""Zero convolutions, stated by autograd as the paper states them (arXiv 2302.05543, section 3.1 and its appendix).

Z(I; {W, B})_{p,i} = B_i + sum_j I_{p,j} W_{i,j}, with p a position and i, j channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.zero_conv import zero_, zero_conv
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.func import functional_call

CHANNELS, POSITIONS = 3, 4
W, B = "0.weight", "0.bias"


def fresh() -> tuple[nn.Sequential, Tensor, Callable[..., Tensor]]:
    """A zero convolution, a feature map without zeros, and Z as a function of I, W and B with one row per position."""
    z = zero_conv(CHANNELS, Backend())
    zero_(z)
    features = torch.rand(1, CHANNELS, 2, 2, generator=torch.Generator().manual_seed(0)) + 0.5

    def run(i, w, b):
        return functional_call(z, {W: w, B: b}, i).flatten(2)[0].T  # positions, channels

    return z, features, run


def gradients(run, features, z):
    """dZ/dI as (p i p' j), dZ/dW as (p i i' j), dZ/dB as (p i i')."""
    di, dw, db = jacobian(run, (features, z.get_parameter(W).detach(), z.get_parameter(B).detach()))
    return di[:, :, 0].flatten(3).transpose(2, 3), dw[..., 0, 0], db


def test_at_zero_only_the_input_gets_no_gradient():
    z, features, run = fresh()
    assert not run(features, z.get_parameter(W), z.get_parameter(B)).any()
    di, dw, db = gradients(run, features, z)
    assert torch.equal(db.diagonal(dim1=1, dim2=2), torch.ones(POSITIONS, CHANNELS))  # dZ/dB = 1
    assert torch.equal(di, torch.zeros_like(di))  # dZ/dI = 0
    same_channel = dw.diagonal(dim1=1, dim2=2).movedim(-1, 1)  # p i j
    assert torch.equal(same_channel, features.flatten(2)[0].T[:, None].expand_as(same_channel))  # dZ/dW = I, not 0
    assert same_channel.all()


def test_after_one_step_of_gradient_descent_the_input_gets_a_gradient():
    z, features, run = fresh()
    target = torch.rand(1, CHANNELS, 2, 2, generator=torch.Generator().manual_seed(1))
    (z(features) - target).square().mean().backward()
    torch.optim.SGD(z.parameters(), lr=0.1).step()
    assert z.get_parameter(W).all()  # W* = W - beta dL/dZ dZ/dW, not 0
    di, _, _ = gradients(run, features, z)
    for position in range(POSITIONS):
        torch.testing.assert_close(
            di[position, :, position], z.get_parameter(W).detach()[..., 0, 0]
        )  # dZ/dI = W*, not 0
