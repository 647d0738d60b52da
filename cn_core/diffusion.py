"""The diffusion process of Stable Diffusion: noise schedule, forward process, DDIM sampling.

Symbols as in DDIM (Song et al., arXiv 2010.02502): x_0 clean latents, x_t noisy ones, eps noise, alpha_bar the product
of 1 - beta. Shapes: B batch, C H W latent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

CPU = torch.device("cpu")
Prediction = Literal["eps", "v"]
Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x_t B C H W, timesteps B) -> eps or v, B C H W."""


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """SD's "scaled linear" schedule, betas linear in their square roots, and what some models were trained with."""

    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    kind: Literal["scaled_linear", "linear"] = "scaled_linear"
    """What is linear: betas, or their square roots."""
    zero_snr: bool = False
    """The last timestep is nothing but noise."""
    device: torch.device = CPU
    """Where its numbers are kept, so that a GPU is not waited for at each use."""

    @cached_property
    def alpha_bar(self) -> Tensor:
        """Products of 1 - beta up to each timestep: `steps` float32 values in (0, 1), falling; the last may be 0.

        They are computed on the CPU.
        """
        power = 2 if self.kind == "scaled_linear" else 1
        ends = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
        betas = torch.linspace(*ends, self.steps, dtype=torch.float64) ** power
        alpha_bar = torch.cumprod(1 - betas, dim=0)
        return (zero_terminal_snr(alpha_bar) if self.zero_snr else alpha_bar).float().to(self.device)

    def signal_and_noise(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t) as B 1 1 1."""
        alpha_bar = self.alpha_bar.to(timesteps.device)[timesteps][:, None, None, None]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def add_noise(self, x_0: Tensor, eps: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (equation 4)."""
        signal, noise = self.signal_and_noise(timesteps)
        return (signal * x_0 + noise * eps).to(x_0.dtype)

    def v_target(self, x_0: Tensor, eps: Tensor, timesteps: Tensor) -> Tensor:
        """v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0 (Salimans & Ho, arXiv 2202.00512)."""
        signal, noise = self.signal_and_noise(timesteps)
        return (signal * eps - noise * x_0).to(x_0.dtype)

    def ddim_timesteps(self, count: int) -> Tensor:
        """`count` timesteps, evenly spaced, highest first, the last one being 1 as in Stable Diffusion."""
        if not 0 < count < self.steps:
            raise ValueError(f"DDIM takes 1 to {self.steps - 1} sampling steps, got {count}.")
        return torch.arange(count).flip(0) * (self.steps // count) + 1


def zero_terminal_snr(alpha_bar: Tensor) -> Tensor:
    """The same with its root moved and scaled so that it ends at 0 and begins as it did (Lin et al., arXiv 2305.08891,
    algorithm 1).
    """
    signal = alpha_bar.sqrt()
    return ((signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])) ** 2


def ddim(
    denoise: Denoiser,
    x_t: Tensor,
    *,
    steps: int = 20,
    prediction: Prediction = "eps",
    schedule: NoiseSchedule | None = None,
) -> Iterator[Tensor]:
    """Deterministic DDIM (eta = 0) from noise x_T (B C H W): yields x after every step, the last one being x_0."""
    schedule = schedule or NoiseSchedule()
    alpha_bar = schedule.alpha_bar.to(x_t.device)
    for t in schedule.ddim_timesteps(steps):
        now, before = alpha_bar[t], alpha_bar[(t - schedule.steps // steps).clamp(min=0)]
        output = denoise(x_t, t.repeat(len(x_t)).to(x_t.device))
        if prediction == "eps":
            eps = output
            x_0 = (x_t - (1 - now).sqrt() * eps) / now.sqrt()
        else:
            x_0 = now.sqrt() * x_t - (1 - now).sqrt() * output
            eps = now.sqrt() * output + (1 - now).sqrt() * x_t
        # Equation 12 with sigma_t = 0.
        x_t = before.sqrt() * x_0 + (1 - before).sqrt() * eps
        yield x_t


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598): 1 is the conditional prediction itself."""
    return unconditional + scale * (conditional - unconditional)
