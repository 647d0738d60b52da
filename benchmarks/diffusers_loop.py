"""The peer of `training.py`: the work of diffusers' ControlNet example (train_controlnet.py) on any base.

In every step, in this order, as the example does with its defaults: pictures and hints are decoded, resized, cropped
and normalised on the main process, the VAE and the text encoder run, the ControlNet is float32, residuals go to it
as keyword arguments, accelerate's accumulate and backward, gradients clipped at 1, AdamW with its default kernels,
gradients zeroed in place, the loss read back.

    python benchmarks/diffusers_loop.py BASE PAIRS --steps 40      # one line of JSON
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL import Image
from torch import Tensor
from torchvision import transforms
from transformers import AutoTokenizer, CLIPTextModel


class Pairs(torch.utils.data.Dataset[tuple[Tensor, Tensor, Tensor]]):
    """A fill50k folder: picture in [-1, 1], hint in [0, 1], token numbers; read at every access."""

    def __init__(self, folder: Path, tokenizer: Any, size: int) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.rows = [json.loads(line) for line in (folder / "prompt.json").read_text().splitlines()]
        shape = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
        self.hint = transforms.Compose(shape)
        self.image = transforms.Compose([*shape, transforms.Normalize([0.5], [0.5])])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        row = self.rows[index]
        image, hint = (Image.open(self.folder / row[key]).convert("RGB") for key in ("target", "source"))
        options = {"padding": "max_length", "truncation": True, "max_length": 77, "return_tensors": "pt"}
        return self.image(image), self.hint(hint), self.tokenizer(row["prompt"], **options).input_ids[0]  # type: ignore[return-value]


def forever(loader: Any) -> Iterator[Any]:
    """Pass after pass."""
    while True:
        yield from loader


def train(base: Path, pairs: Path, size: int, batch: int, steps: int, learning_rate: float) -> list[float]:
    """Seconds of each step."""
    folder, local = str(base), dict[str, Any](local_files_only=True)
    unet: Any = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **local)
    vae: Any = AutoencoderKL.from_pretrained(folder, subfolder="vae", **local)
    text: Any = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", **local)
    schedule: Any = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    tokenizer = AutoTokenizer.from_pretrained(str(base / "tokenizer"), **local)
    control: Any = ControlNetModel.from_unet(unet)
    for frozen in (unet, vae, text):
        frozen.requires_grad_(False)
    control.train()
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.AdamW(control.parameters(), lr=learning_rate, weight_decay=1e-2)
    loader = torch.utils.data.DataLoader(Pairs(pairs, tokenizer, size), batch, shuffle=True, drop_last=True)
    rate = get_scheduler("constant", optimizer)
    control, optimizer, loader, rate = accelerator.prepare(control, optimizer, loader, rate)
    batches, seconds = forever(loader), []
    for _ in range(steps):
        began = time.perf_counter()
        image, hint, tokens = next(batches)
        with accelerator.accumulate(control):
            latents = vae.encode(image).latent_dist.sample() * vae.config.scaling_factor
            noise = torch.randn_like(latents)
            timesteps = torch.randint(schedule.config.num_train_timesteps, (batch,))
            noisy, context = schedule.add_noise(latents, noise, timesteps), text(tokens)[0]
            down, mid = control(noisy, timesteps, context, controlnet_cond=hint, return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
            prediction = unet(noisy, timesteps, context, **residuals).sample
            loss = F.mse_loss(prediction.float(), noise.float())
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(control.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad(set_to_none=False)
            loss.item()
        seconds.append(time.perf_counter() - began)
    return seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="diffusers folder")
    parser.add_argument("pairs", type=Path, help="folder in fill50k's layout")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    seconds = train(args.base, args.pairs, args.size, args.batch, args.steps, args.learning_rate)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_rss_mib": peak}))


if __name__ == "__main__":
    main()
