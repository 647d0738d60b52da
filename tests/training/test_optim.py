"""Optimisers, rates and the average."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from controlnet_kit.training.config import OptimizerConfig
from controlnet_kit.training.errors import ConfigError
from controlnet_kit.training.optim import Average, Optimizers, rate
from controlnet_kit.training.targets.target import ParameterGroup
from torch import nn


def test_rates() -> None:
    constant = OptimizerConfig(warmup=4)
    assert [rate(constant, step, 100) for step in (0, 3, 4, 99)] == [0.2, 0.8, 1, 1]
    cosine = OptimizerConfig(schedule="cosine", warmup=0.1)
    assert rate(cosine, 10, 100) == 1 and rate(cosine, 55, 100) == pytest.approx(0.5)
    cycle = [rate(OptimizerConfig(schedule="one_cycle"), step, 1000) for step in range(1000)]
    assert cycle[0] == pytest.approx(1 / 25) and cycle[20] == 1 and cycle[-1] < 1e-4


def layers() -> nn.Sequential:
    """Two."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))


def steps(config: OptimizerConfig, count: int = 3) -> tuple[nn.Sequential, list[float]]:
    """Training to say nothing."""
    model = layers()
    group = ParameterGroup(name="all", parameters=tuple(model.parameters()), learning_rate=config.learning_rate)
    optimizers, found = Optimizers([group], config), []
    for _ in range(count):
        optimizers.set_rate(1.0)
        loss = model(torch.ones(2, 8)).square().mean()
        loss.backward()
        if not config.in_backward:
            optimizers.all[0].step()
        optimizers.zero_grad()
        found.append(loss.item())
    return model, found


@pytest.mark.parametrize("name", ["adamw", "adafactor", "sgd"])
def test_each_optimiser_learns(name: str) -> None:
    _, losses = steps(replace(OptimizerConfig(learning_rate=0.05), name=name), 8)
    assert losses[-1] < losses[0]


def test_stepping_in_the_backward_pass_is_the_same_and_keeps_no_gradient() -> None:
    usual, _ = steps(OptimizerConfig(learning_rate=0.01, clip=0))
    inside, _ = steps(OptimizerConfig(learning_rate=0.01, clip=0, in_backward=True))
    for first, second in zip(usual.parameters(), inside.parameters(), strict=True):
        assert torch.equal(first, second) and second.grad is None


def test_rounded_weights_need_an_optimiser_that_rounds() -> None:
    with pytest.raises(ConfigError, match="bf16 needs adamw"):
        steps(OptimizerConfig(name="sgd", weights="bf16"))


def test_the_average_is_short_at_first() -> None:
    for step, expected in ((1, 2 - 2 / 11), (10_000, 1.1)):
        average = Average(0.9)
        average.update({"w": torch.full((3,), 1.0)}, 0)
        average.update({"w": torch.full((3,), 2.0)}, step)
        torch.testing.assert_close(average.tensors["w"], torch.full((3,), expected))
