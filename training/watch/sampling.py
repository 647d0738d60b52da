"""Pictures and predictions in the middle of a run: with what is trained, or with the frozen base alone.

Shapes: B pairs, C h w latent, H W = 8h 8w pixels. Pictures are B H W 3 uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...cn_core.diffusion import ddim, guided
from .. import hardware
from ..bases.base import Codec
from ..samples import Batch, Samples, joined
from ..targets import precision

if TYPE_CHECKING:
    from ..loop import Trainer

Pictures: TypeAlias = NDArray[np.uint8]


class Averaged(nn.Module):
    """A module called with other weights than its own, such as their average. Copies nothing."""

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.call = lambda *inputs: torch.func.functional_call(module, dict(weights), inputs)

    def forward(self, *inputs: Any) -> Any:
        """As the module itself."""
        return self.call(*inputs)


def kept(run: Trainer) -> nn.Module:
    """What is trained, with the weights that the finished file would have now."""
    if run.average is not None and run.average.tensors:
        return Averaged(run.target.module, run.average.tensors)
    return run.module


def rows_of_one_size(samples: Samples, count: int) -> Tensor:
    """The first rows, at most `count`, of the latent size that most rows have."""
    return max(samples.sizes.values(), key=len)[:count]


def plain_batch(samples: Samples, rows: Tensor, *, dropped: bool = False) -> Batch:
    """These rows without anything random: the posterior's means, all prompts or (dropped) none."""
    shape = samples.latent_shape(int(rows[0]))
    return samples.batch(rows, torch.zeros(len(rows), *shape), torch.full((len(rows),), dropped))


@torch.no_grad()
def predict(run: Trainer, module: nn.Module | None, batch: Batch, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """eps or v, B C h w float32 on the run's device, in parts as large as the run's; no module: the base alone."""
    device, found = run.accelerator.device, list[Tensor]()
    for start in range(0, len(noisy), run.micro):
        stop = start + run.micro
        some = batch.part(start, stop).to(device)
        x, t = hardware.laid_out(noisy[start:stop].to(device), run.config.hardware), timesteps[start:stop].to(device)
        with run.computation.autocast():
            if module is None:
                found.append(precision.predict(run.base.unet, x, t, some).float())
            else:
                found.append(run.target.predict(module, run.base.unet, some, x, t).float())
    return torch.cat(found)


def draw(run: Trainer, module: nn.Module | None, batch: Batch, empty: Batch, noise: Tensor) -> Pictures:
    """Pictures by DDIM with guidance, as the validation settings have it; `empty` is the batch without prompts."""
    settings, both = run.config.validation, joined(batch, empty)

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        if settings.cfg == 1:
            return predict(run, module, batch, x, timesteps)
        twice = predict(run, module, both, torch.cat([x, x]), torch.cat([timesteps, timesteps]))
        conditional, unconditional = twice.chunk(2)
        return guided(conditional, unconditional, settings.cfg)

    noise = noise.to(run.accelerator.device)
    *_, latents = ddim(denoise, noise, steps=settings.steps, prediction=run.base.prediction, schedule=run.schedule)
    return decoded(run.base.codec, latents)


def one_step(run: Trainer, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """The latents x_0 (B C h w) that a prediction from x_t amounts to: a blurred preview for one call."""
    signal, noise = run.schedule.signal_and_noise(timesteps.to(prediction.device))
    x_t = noisy.to(prediction.device)
    return (x_t - noise * prediction) / signal if run.base.prediction == "eps" else signal * x_t - noise * prediction


def decoded(codec: Codec, latents: Tensor) -> Pictures:
    """Latents B C h w -> pictures, one after the other since they take memory; on the CPU where that is too little."""
    try:
        with on_device(codec, latents.device):
            return np.concatenate([to_pixels(codec.decode(one[None])) for one in latents])
    except torch.OutOfMemoryError:
        if latents.device.type == "cpu":
            raise
    return decoded(codec, latents.cpu())


@contextmanager
def on_device(codec: Codec, device: torch.device) -> Generator[None]:
    """An autoencoder beside what is trained for a while; afterwards it is where it was."""
    before = [next(module.parameters()).device for module in codec.modules()]
    try:
        for module in codec.modules():
            module.to(device)
        yield
    finally:
        for module, place in zip(codec.modules(), before, strict=True):
            module.to(place)


def to_pixels(images: Tensor) -> Pictures:
    """B 3 H W in [0, 1] -> B H W 3 uint8."""
    return images.float().clamp(0, 1).mul(255).round().byte().movedim(1, -1).contiguous().cpu().numpy()


def to_images(pictures: Pictures) -> Tensor:
    """B H W 3 uint8 -> B 3 H W in [0, 1]."""
    return torch.from_numpy(pictures).movedim(-1, 1).float() / 255
