"""Train the embedded base's autoencoder on crops of the tiny world.

Shapes: B batch, H W pixels. Pictures are B 3 H W in [-1, 1], latents B 4 H/8 W/8.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from ...cn_core.networks.autoencoder import SCALING_FACTOR, Autoencoder, ResidualConvolutions
from ..synth import world

CROP = 64
NOISE = 0.04
"""Deviation of the noise added to latents (themselves of deviation about 1), so that the decoder forgives the UNet."""


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 B H W 3 -> float B 3 H W in [-1, 1]."""
    return torch.from_numpy(images).movedim(-1, 1).float().div(127.5).sub(1).contiguous()


def crops(pool: np.ndarray, batch: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Endless random crops of the pool, B 3 CROP CROP."""
    while True:
        picks = rng.integers(0, len(pool), size=batch)
        corners = rng.integers(0, world.SIZE - CROP + 1, size=(batch, 2))
        windows = [pool[i, y : y + CROP, x : x + CROP] for i, (y, x) in zip(picks, corners, strict=True)]
        yield to_pixels(np.stack(windows))


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + L2 + L1 of the image gradients, which keeps edges where the eye (and Canny) looks for them."""
    error = output - target
    across, down = error.diff(dim=-1).abs().mean(), error.diff(dim=-2).abs().mean()
    return error.abs().mean() + error.square().mean() + across + down


def build() -> Autoencoder:
    """Fresh weights; every residual block starts as the identity."""
    model = Autoencoder()
    for module in model.modules():
        if isinstance(module, ResidualConvolutions):
            for parameter in module.layers[-1].parameters():
                nn.init.zeros_(parameter)
    return model


@torch.no_grad()
def standardise(model: Autoencoder, pixels: Tensor) -> None:
    """Rewrite the two 1x1 convolutions at the latent: each scaled channel gets mean 0 and deviation 1."""
    latents = model.encode(pixels)
    shift, scale = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)) * SCALING_FACTOR
    (weight, bias), (inverse, inverse_bias) = model.to_latent.parameters(), model.from_latent.parameters()
    weight /= scale[:, None, None, None]
    bias.copy_((bias - shift) / scale)
    inverse_bias += inverse[:, :, 0, 0] @ shift
    inverse *= scale[None, :, None, None]


def train(steps: int, batch: int, learning_rate: float, pool_size: int, seed: int) -> Autoencoder:
    """Train on crops of `pool_size` compositions; returns the averaged (EMA) weights, standardised."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    pool = np.stack([c.image for c in tqdm(world.compositions(0, pool_size), total=pool_size, desc="draw")])
    model = build()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=0.03, cycle_momentum=False
    )
    progress = tqdm(range(steps), desc="autoencoder", mininterval=5)
    for step, target in zip(progress, crops(pool, batch, rng), strict=False):
        with torch.autocast("cpu", torch.bfloat16):
            latent = model.encode(target)
            output = model.decode(latent + NOISE * torch.randn_like(latent)).float()
        loss = reconstruction_loss(output, target) + 1e-3 * (latent.float().square().mean() - 1).square()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        if step % 50 == 0:
            psnr = -10 * torch.log10((output.clamp(-1, 1) - target).square().mean() / 4)
            progress.set_postfix(loss=f"{loss.item():.4f}", psnr=f"{psnr.item():.1f}")
    model.load_state_dict(average.module.state_dict())
    model.eval()
    standardise(model, to_pixels(pool[:256]))
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: write the autoencoder as one safetensors file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--pool", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    model = train(args.steps, args.batch, args.learning_rate, args.pool, args.seed)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, args.output)


if __name__ == "__main__":
    main()
