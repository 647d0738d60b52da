"""Train the embedded base: the text encoder and the UNet, together, on the tiny world.

Shapes: B batch, latents B 4 16 16.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from ...cn_core.diffusion import NoiseSchedule
from ...cn_core.networks.autoencoder import Autoencoder
from ...cn_core.networks.config import TINY
from ...cn_core.networks.text_encoder import PADDING, WordTextEncoder
from ...cn_core.networks.unet import UNet
from ...cn_core.networks.zero_conv import zero_
from ..objective import losses, min_snr_weight
from ..synth import world
from .cache import Compositions, load_or_build

MIN_SNR_GAMMA = 5.0


class Base(nn.Module):
    """The two trained parts in one module, so that they share an optimiser and an average."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(TINY)
        self.text_encoder = WordTextEncoder(world.vocabulary(), width=TINY.context_dim)
        zero_(self.unet.out[-1])

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """eps for B 4 16 16 latents, B timesteps and B 16 tokens."""
        return self.unet(noisy, timesteps, self.text_encoder(tokens))


def train(data: Compositions, steps: int, batch: int, learning_rate: float, seed: int) -> Base:
    """Train on cached latents with 10 % of the prompts empty; returns the averaged (EMA) weights."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    schedule = NoiseSchedule()
    model = Base()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9992))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=True
    )
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=0.03, final_div_factor=1.0, cycle_momentum=False
    )
    progress = tqdm(range(steps), desc="base", mininterval=5)
    mean_loss = 0.0
    for step in progress:
        rows = torch.randint(len(data.latents), (batch,), generator=generator)
        latents, tokens = data.latents[rows].float(), data.tokens[rows]
        tokens = torch.where(torch.rand(batch, 1, generator=generator) < 0.1, PADDING, tokens)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(schedule.steps, (batch,), generator=generator)
        noisy = schedule.add_noise(latents, noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16):
            prediction = model(noisy, timesteps, tokens)
        loss = (losses(prediction, noise) * min_snr_weight(schedule.alpha_bar[timesteps], MIN_SNR_GAMMA)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        average.update_parameters(model)
        mean_loss = loss.item() if step == 0 else 0.99 * mean_loss + 0.01 * loss.item()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{mean_loss:.4f}")
    model.load_state_dict(average.module.state_dict())
    return model.eval()


def save(model: Base, folder: Path) -> None:
    """Write tiny_unet.safetensors (bare LDM keys) and tiny_text_encoder.safetensors, both float16."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.half().contiguous() for name, value in model.unet.state_dict().items()}
    save_file(half, folder / "tiny_unet.safetensors")
    half = {name: value.half().contiguous() for name, value in model.text_encoder.state_dict().items()}
    vocabulary = json.dumps(model.text_encoder.vocabulary)
    save_file(half, folder / "tiny_text_encoder.safetensors", metadata={"vocabulary": vocabulary})


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: cache the world with the autoencoder given, train, write the two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for the two files")
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="file of encoded compositions, made when missing")
    parser.add_argument("--compositions", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args(arguments)
    autoencoder = Autoencoder()
    autoencoder.load_state_dict(load_file(args.autoencoder))
    data = load_or_build(args.cache, autoencoder.eval(), args.compositions)
    save(train(data, args.steps, args.batch, args.learning_rate, args.seed), args.output)


if __name__ == "__main__":
    main()
