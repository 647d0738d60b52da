"""The training objective: || eps - eps_theta(z_t, t, c_t, c_f) ||^2 (paper, equation 5), one step of it.

Shapes: B batch, z B 4 H W latents, M text tokens, D their width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def drop_prompts(context: Tensor, empty: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Replace rows of `context` (B M D) by that of the empty prompt (1 M D), each with this probability.

    Paper, section 3.4: it makes the ControlNet read the hint instead of the text.
    """
    dropped = torch.rand(len(context), generator=generator) < probability
    return torch.where(dropped.to(context.device)[:, None, None], empty, context)


def min_snr_weight(alpha_bar: Tensor, gamma: float) -> Tensor:
    """min(SNR, gamma) / SNR for eps-prediction (Hang et al., arXiv 2303.09556), B."""
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=gamma) / snr


def weighted_mse(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error, each row (B ...) times its weight (B)."""
    per_row = (prediction.float() - target.float()).square().flatten(1).mean(dim=1)
    return (per_row if weight is None else per_row * weight).mean()
