"""A run against the loop of diffusers' example: the same losses, step by step, when both are fed the same noise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers_networks
import pytest
import torch
import torch.nn.functional as F
from controlnet_kit.cn_core.files.keymaps import rename
from controlnet_kit.cn_core.files.keymaps.controlnet import controlnet_keys
from controlnet_kit.cn_core.files.keymaps.unet import unet_keys
from controlnet_kit.training.bases.base import Base
from controlnet_kit.training.events import StepDone
from controlnet_kit.training.loop import Trainer
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from training_runs import configured, finished, of_kind, trainer

STEPS = 50


def diffusers_steps(run: Trainer) -> Iterator[tuple[float, float]]:
    """Loss and norm of the gradient in each step of the example, with the weights and draws that `run` begins with."""
    shape, settings = run.base.unet.config, run.config.optimizer
    unet: Any = diffusers_networks.unet(shape)
    unet.load_state_dict(rename(run.base.unet.state_dict(), unet_keys(shape)))
    control: Any = diffusers_networks.controlnet(shape)
    start = {name.removeprefix("control."): value for name, value in run.keeper.state_dict().items()}
    control.load_state_dict(rename(start, controlnet_keys(shape)))
    schedule: Any = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    optimizer = torch.optim.AdamW(control.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    for step in range(STEPS):
        draw = run.draw(step)
        batch = run.samples.batch(draw.rows, draw.posterior_noise, draw.dropped)
        timesteps = run.timesteps.choose(draw.levels)
        noisy = schedule.add_noise(batch.latents, draw.noise, timesteps)
        down, mid = control(noisy, timesteps, batch.context, controlnet_cond=batch.hint, return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        loss = F.mse_loss(unet(noisy, timesteps, batch.context, **residuals).sample, draw.noise)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(control.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item(), norm.item()


def test_fifty_losses_and_norms_are_those_of_diffusers(tmp_path: Path, base: Base) -> None:
    run = trainer(configured(tmp_path / "all", run={"steps": STEPS}), base=base)
    (unmoved,) = taken(trainer(configured(tmp_path / "one", run={"steps": 1}), draws=lambda _: run.draw(STEPS - 1)))
    expected = list(diffusers_steps(run))
    found = taken(run)
    assert [step.loss for step in found] == pytest.approx([loss for loss, _ in expected], abs=1e-5)
    assert [step.gradient_norm for step in found] == pytest.approx([norm for _, norm in expected], rel=1e-3)
    assert abs(unmoved.loss - found[-1].loss) > 1e-3


def taken(run: Trainer) -> list[Any]:
    """The steps of the run, taken here."""
    return of_kind(finished(run), StepDone)
