"""The peer of `training.py` and `training_gpu.py`: the work of diffusers' ControlNet examples on any base.

In every step, in this order, as train_controlnet.py does with its defaults: pictures and hints are decoded, resized,
cropped and normalised on the main process, the VAE and the text encoder run, the ControlNet is float32, residuals go
to the UNet as keyword arguments, accelerate's accumulate and backward, gradients clipped at 1, AdamW with its default
kernels, gradients zeroed in place, the loss read back. train_controlnet_sdxl.py embeds the prompts once. With bf16 the
frozen networks are bf16, and the ControlNet is under autocast.

    python benchmarks/diffusers_loop.py JSON      # fields of training_job.Job
"""

from __future__ import annotations

import json
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
from training_job import Job, Outcome, peak_mib, report, this_job
from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection

LOCAL: dict[str, Any] = {"local_files_only": True}


class Prompts:
    """SD 1.5's: tokens come with the pairs, and are encoded in every step."""

    def __init__(self, base: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.tokenizer = AutoTokenizer.from_pretrained(str(base / "tokenizer"), **LOCAL)
        network: Any = CLIPTextModel.from_pretrained(str(base), subfolder="text_encoder", **LOCAL)
        self.text = network.requires_grad_(False).to(device, dtype)

    def prepare(self, prompts: set[str]) -> None:
        """Before the first step."""

    def of(self, prompt: str) -> Any:
        """What comes with a pair."""
        return tokens(self.tokenizer, prompt)[0]

    def conditions(self, given: Any, size: int) -> dict[str, Any]:
        """Arguments of both networks, from a batch of what came with the pairs."""
        del size
        return {"encoder_hidden_states": self.text(given)[0]}


class XLPrompts(Prompts):
    """SDXL's: two encoders' penultimate layers side by side and the pooled text, embedded once."""

    def __init__(self, base: Path, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(base, device, dtype)
        self.tokenizer_2 = AutoTokenizer.from_pretrained(str(base / "tokenizer_2"), **LOCAL)
        network: Any = CLIPTextModelWithProjection.from_pretrained(str(base), subfolder="text_encoder_2", **LOCAL)
        self.text_2 = network.requires_grad_(False).to(device, dtype)
        self.known: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def prepare(self, prompts: set[str]) -> None:
        """Embed them, and let the encoders go."""
        for prompt in prompts:
            one = self.text(tokens(self.tokenizer, prompt).to(self.device), output_hidden_states=True)
            two = self.text_2(tokens(self.tokenizer_2, prompt).to(self.device), output_hidden_states=True)
            context = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
            self.known[prompt] = context[0].cpu(), two.text_embeds[0].cpu()
        del self.text, self.text_2

    def of(self, prompt: str) -> Any:
        """Embedded."""
        return self.known[prompt]

    def conditions(self, given: Any, size: int) -> dict[str, Any]:
        """With the six sizes."""
        context, pooled = given
        sizes = torch.tensor([[size, size, 0, 0, size, size]] * len(pooled)).to(pooled)
        return {"encoder_hidden_states": context, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}


def tokens(tokenizer: Any, prompt: str) -> Tensor:
    """1 77."""
    return tokenizer(prompt, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids


class Pairs(torch.utils.data.Dataset[tuple[Tensor, Tensor, Any]]):
    """A fill50k folder: picture in [-1, 1], hint in [0, 1] and the prompt; read at every access."""

    def __init__(self, folder: Path, prompts: Prompts, size: int) -> None:
        self.folder, self.prompts = folder, prompts
        self.rows = [json.loads(line) for line in (folder / "prompt.json").read_text().splitlines()]
        shape = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
        self.hint: Any = transforms.Compose(shape)
        self.image: Any = transforms.Compose([*shape, transforms.Normalize([0.5], [0.5])])
        prompts.prepare({row["prompt"] for row in self.rows})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Any]:
        row = self.rows[index]
        image, hint = (Image.open(self.folder / row[key]).convert("RGB") for key in ("target", "source"))
        return self.image(image), self.hint(hint), self.prompts.of(row["prompt"])


def forever(loader: Any) -> Iterator[Any]:
    """Pass after pass."""
    while True:
        yield from loader


def train(job: Job) -> list[float]:
    """Seconds of each step."""
    base, dtype = Path(job.base), torch.bfloat16 if job.precision == "bf16" else torch.float32
    accelerator = Accelerator(cpu=job.device == "cpu", mixed_precision="bf16" if job.precision == "bf16" else "no")
    unet: Any = UNet2DConditionModel.from_pretrained(job.base, subfolder="unet", **LOCAL)
    vae: Any = AutoencoderKL.from_pretrained(job.base, subfolder="vae", **LOCAL)
    schedule: Any = DDPMScheduler.from_pretrained(job.base, subfolder="scheduler")
    control: Any = ControlNetModel.from_unet(unet)
    for frozen in (unet, vae):
        frozen.requires_grad_(False).to(accelerator.device, dtype)
    control.train()
    xl = (base / "text_encoder_2").is_dir()
    prompts = (XLPrompts if xl else Prompts)(base, accelerator.device, dtype)
    optimizer = torch.optim.AdamW(control.parameters(), lr=1e-5, weight_decay=1e-2)
    pairs = Pairs(Path(job.pairs), prompts, job.size)
    loader = torch.utils.data.DataLoader(pairs, job.batch, shuffle=True, drop_last=True)
    rate = get_scheduler("constant", optimizer)
    control, optimizer, loader, rate = accelerator.prepare(control, optimizer, loader, rate)
    batches, seconds = forever(loader), list[float]()
    for _ in range(job.steps):
        began = time.perf_counter()
        image, hint, given = next(batches)
        with accelerator.accumulate(control):
            latents = vae.encode(image.to(dtype)).latent_dist.sample() * vae.config.scaling_factor
            noise = torch.randn_like(latents)
            timesteps = torch.randint(schedule.config.num_train_timesteps, (job.batch,), device=latents.device)
            noisy = schedule.add_noise(latents.float(), noise.float(), timesteps).to(dtype)
            conditions = prompts.conditions(given, job.size)
            down, mid = control(noisy, timesteps, controlnet_cond=hint, return_dict=False, **conditions)
            residuals = {
                "down_block_additional_residuals": [one.to(dtype) for one in down],
                "mid_block_additional_residual": mid.to(dtype),
            }
            prediction = unet(noisy, timesteps, **conditions, **residuals).sample
            loss = F.mse_loss(prediction.float(), noise.float())
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(control.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad(set_to_none=False)
            loss.item()
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    job = this_job()
    report(Outcome(seconds=train(job), peak_mib=peak_mib(job)))
