"""The training loop: a frozen base, a trainable copy, and a generator that yields each step.

Shapes: B batch, latents B 4 16 16, hints B 3 128 128.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..cn_core.diffusion import NoiseSchedule
from ..cn_core.networks.controlnet import ControlNet
from ..cn_core.networks.text_encoder import PADDING, WordTextEncoder
from ..cn_core.networks.unet import UNet
from .config import TrainConfig
from .step import drop_prompts, min_snr_weight, weighted_mse
from .tiny.cache import Compositions, showing_things

EMA_DECAY = 0.998


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one optimiser step reports."""

    number: int
    """From 1."""
    loss: float


class Trainer:
    """The parts of a run. `run` trains; `average` gives the weights to keep."""

    def __init__(self, unet: UNet, text_encoder: WordTextEncoder, data: Compositions, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.data = data
        self.unet = unet.requires_grad_(False)
        self.text_encoder = text_encoder.requires_grad_(False)
        self.control = ControlNet.from_unet(unet).requires_grad_(True)
        self.averaged = AveragedModel(self.control, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
        self.schedule = NoiseSchedule()
        self.generator = torch.Generator().manual_seed(config.seed)
        everything = torch.arange(len(data.latents))
        self.rows = everything if config.condition == "canny" else showing_things(data.tokens, text_encoder)

    def average(self) -> dict[str, Tensor]:
        """The exponential moving average of the ControlNet's weights."""
        return self.averaged.module.state_dict()

    def run(self) -> Iterator[Step]:
        """Train for `config.steps` steps."""
        config = self.config
        optimizer = torch.optim.AdamW(self.control.parameters(), lr=config.learning_rate, fused=True)
        rate = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.02, cycle_momentum=False
        )
        for number in range(1, config.steps + 1):
            loss = self.loss()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.control.parameters(), 1.0)
            optimizer.step()
            rate.step()
            self.averaged.update_parameters(self.control)
            yield Step(number=number, loss=loss.item())

    def loss(self) -> Tensor:
        """The objective on a fresh batch."""
        rows = self.rows[torch.randint(len(self.rows), (self.config.batch,), generator=self.generator)]
        latents, hint = self.data.latents[rows].float(), self.data.hints(self.config.condition, rows)
        noise = torch.randn(latents.shape, generator=self.generator)
        timesteps = torch.randint(self.schedule.steps, (len(rows),), generator=self.generator)
        noisy = self.schedule.add_noise(latents, noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                context = self.text_encoder(self.data.tokens[rows])
                empty = self.text_encoder(torch.full_like(self.data.tokens[:1], PADDING))
                context = drop_prompts(context, empty, self.config.prompt_dropping, self.generator)
                encoded = self.unet.encode(noisy, timesteps, context)
            residuals = self.control(noisy, timesteps, context, self.control.encode_hint(hint))
            prediction = self.unet.decode(encoded, context, residuals)
        weight = min_snr_weight(self.schedule.alpha_bar[timesteps], self.config.min_snr_gamma)
        return weighted_mse(prediction, noise, weight)
