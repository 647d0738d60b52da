"""Equation (1) around blocks of four kinds."""

from __future__ import annotations

import copy

import pytest
import torch
from controlnet_kit.cn_core.networks.attention import CrossAttention, SpatialTransformer, TransformerBlock
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.controlled import Controlled
from controlnet_kit.cn_core.networks.layers import ResBlock
from torch import nn

BACKEND = Backend()
MAP, TOKENS = (2, 64, 6, 5), (2, 30, 64)
BLOCKS = {
    "ResBlock": (lambda: ResBlock(64, 64, 32, BACKEND), MAP, (2, 32)),
    "conv-bn-relu": (lambda: nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()), MAP, None),
    "attention": (lambda: CrossAttention(64, 24, 4, BACKEND), TOKENS, (2, 7, 24)),
    "transformer": (lambda: TransformerBlock(64, 24, 4, BACKEND), TOKENS, (2, 7, 24)),
    "transformer over a map": (
        lambda: SpatialTransformer(64, 24, 4, 2, linear=True, backend=BACKEND),
        MAP,
        (2, 7, 24),
    ),
}


@pytest.fixture(params=BLOCKS)
def case(request):
    """A block with random weights, and x, condition and further arguments for it."""
    build, features, extra = BLOCKS[request.param]
    torch.manual_seed(0)
    block = build()
    further = [] if extra is None else [torch.randn(extra)]
    return block, torch.randn(features), torch.randn(features), further


def test_equals_the_block_until_the_first_step(case):
    block, x, condition, further = case
    before = copy.deepcopy(block).eval()(x, *further)
    controlled = Controlled(block, 64)
    assert torch.equal(controlled(x, condition, *further), before)


def test_gradient_reaches_the_copy_after_one_step_and_the_locked_block_never(case):
    block, x, condition, further = case
    locked = copy.deepcopy(block.state_dict())
    controlled = Controlled(block.requires_grad_(False), 64).train()
    target = torch.randn_like(x)
    optimizer = torch.optim.SGD([p for p in controlled.parameters() if p.requires_grad], lr=0.1)

    def step() -> dict[str, float]:
        """One step of training; the largest gradient of each part."""
        optimizer.zero_grad()
        (controlled(x, condition, *further) - target).square().mean().backward()
        optimizer.step()
        grads = {name: p.grad for name, p in controlled.named_parameters() if p.grad is not None}
        parts = {name.split(".")[0] for name in grads}
        return {part: max(g.abs().max().item() for n, g in grads.items() if n.startswith(part)) for part in parts}

    first, second, third = step(), step(), step()
    assert first["zero_out"] > 0 and first["trainable"] == first["zero_in"] == 0
    assert second["trainable"] > 0 and second["zero_in"] > 0
    assert "locked" not in {*first, *second, *third}
    # Neither gradients nor batch statistics have touched it.
    assert all(torch.equal(value, locked[key]) for key, value in controlled.locked.state_dict().items())
    assert not torch.equal(controlled(x, condition, *further), controlled.locked(x, *further))


def test_the_condition_counts_once_trained(case):
    block, x, condition, further = case
    controlled = Controlled(block, 64)
    with torch.no_grad():
        for z in (controlled.zero_in, controlled.zero_out):
            z.weight.copy_(torch.eye(64))
        expected = controlled.locked(x, *further) + controlled.trainable(x + condition, *further)
        torch.testing.assert_close(controlled(x, condition, *further), expected)


def test_blocks_that_change_the_number_of_channels():
    controlled = Controlled(ResBlock(32, 64, 16, BACKEND), 64, in_channels=32)
    x, emb = torch.randn(1, 32, 4, 4), torch.randn(1, 16)
    assert torch.equal(controlled(x, x, emb), controlled.locked(x, emb))
