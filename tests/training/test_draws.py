"""The draws of a step, and the distributions of timesteps."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.training.config import ObjectiveConfig
from controlnet_kit.training.draws import draw
from controlnet_kit.training.timesteps import BINS, Timesteps

ROWS = torch.arange(64)


def test_a_step_is_a_draw() -> None:
    first, again, other = (draw(3, step, ROWS, (4, 8, 8), ObjectiveConfig()) for step in (10, 10, 11))
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in vars(first))
    assert not torch.equal(first.noise, other.noise)
    part = first.part(5, 9)
    assert torch.equal(part.noise, first.noise[5:9]) and torch.equal(part.rows, ROWS[5:9])


def test_prompts_are_dropped_at_the_rate_asked_for() -> None:
    for share in (0.0, 0.3, 1.0):
        objective = ObjectiveConfig(prompt_dropping=share)
        dropped = torch.cat([draw(0, step, ROWS, (1, 1, 1), objective).dropped for step in range(60)])
        assert dropped.float().mean().item() == pytest.approx(share, abs=0.03)


def test_offset_noise_moves_whole_channels() -> None:
    plain, moved = (draw(0, 0, ROWS, (4, 8, 8), ObjectiveConfig(offset_noise=share)) for share in (0.0, 0.1))
    offset = moved.noise - plain.noise
    torch.testing.assert_close(offset, offset[:, :, :1, :1].expand_as(offset))
    assert offset[:, :, 0, 0].std().item() == pytest.approx(0.1, rel=0.15)


def test_uniform_and_cubic_timesteps() -> None:
    levels = torch.linspace(0, 0.999999, 100_000)
    uniform = Timesteps("uniform", 1000).choose(levels)
    assert (uniform.min(), uniform.max()) == (0, 999) and uniform.float().mean().item() == pytest.approx(499.5, abs=0.5)
    cubic = Timesteps("cubic", 1000).choose(levels)
    assert (cubic.min(), cubic.max()) == (0, 999) and cubic.float().mean().item() == pytest.approx(750, abs=1)


def test_learned_timesteps_keep_the_objective() -> None:
    """Twice the loss is twice as often drawn (but for the uniform share), and the weighted mean stays."""
    learned = Timesteps("learned", 1000)
    loss = torch.linspace(1, 2, BINS, dtype=torch.float64)
    learned.learn(loss.square(), torch.ones(BINS, dtype=torch.float64))
    chosen = learned.choose((torch.arange(200_000) + 0.5) / 200_000)
    shares = torch.bincount(learned.bins(chosen), minlength=BINS) / len(chosen)
    torch.testing.assert_close(shares.double(), learned.probabilities(), atol=1e-3, rtol=0)
    weight = learned.weight(chosen)
    assert weight is not None
    assert (weight * loss[learned.bins(chosen)]).mean().item() == pytest.approx(loss.mean().item(), rel=1e-3)
    assert 1.7 < shares[-1] / shares[0] < 2
