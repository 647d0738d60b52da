"""The objective: || target - prediction(z_t, t, c_t, c_f) ||^2 (paper, equation 5), for each pair of a batch.

Shapes: B pairs, C h w latent.
"""

from __future__ import annotations

from torch import Tensor

from ..cn_core.diffusion import NoiseSchedule, Prediction


def target(prediction: Prediction, schedule: NoiseSchedule, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the network should say: eps, or v for models that predict v; B C h w."""
    return noise if prediction == "eps" else schedule.v_target(latents, noise, t)


def min_snr_weight(alpha_bar: Tensor, gamma: float, prediction: Prediction = "eps") -> Tensor:
    """min(SNR, gamma) / SNR for eps, min(SNR, gamma) / (SNR + 1) for v (Hang et al., arXiv 2303.09556); B."""
    snr = alpha_bar / (1 - alpha_bar)
    return (gamma / snr).clamp(max=1) if prediction == "eps" else snr.clamp(max=gamma) / (snr + 1)


def losses(prediction: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of each pair, B float32."""
    return (prediction.float() - wanted.float()).square().flatten(1).mean(dim=1)
