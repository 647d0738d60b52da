"""Everything random in a step, as a pure function of the seed and the step's number.

It is drawn for the whole batch, on the CPU; processes and micro-batches take slices. So a resumed run needs no state of
a generator, several processes compute what one would, and smaller micro-batches change nothing.

Shapes: B pairs of the whole batch, C h w latent.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .config import ObjectiveConfig
from .order import generator


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One step's."""

    rows: Tensor
    """B int64."""
    noise: Tensor
    """B C h w: eps."""
    posterior_noise: Tensor
    """B C h w: which of its possible latents a picture gets."""
    levels: Tensor
    """B in [0, 1): where in the distribution of timesteps."""
    dropped: Tensor
    """B bool: whose prompt is empty."""

    def part(self, start: int, stop: int) -> Draw:
        """Some of the pairs."""
        return Draw(**{item.name: getattr(self, item.name)[start:stop] for item in fields(self)})

    def pinned(self) -> Draw:
        """What a device needs of it in memory that a GPU copies from without waiting."""
        return replace(self, noise=self.noise.pin_memory())


def draw(seed: int, step: int, rows: Tensor, shape: tuple[int, int, int], objective: ObjectiveConfig) -> Draw:
    """The draw of step `step` (from 0) for these rows of latents of this shape (C h w)."""
    source = generator(seed, "step", step)
    count = len(rows)
    noise = torch.randn(count, *shape, generator=source)
    posterior_noise = torch.randn(count, *shape, generator=source)
    levels = torch.rand(count, generator=source)
    dropped = torch.rand(count, generator=source) < objective.prompt_dropping
    if objective.offset_noise:
        noise = noise + objective.offset_noise * torch.randn(count, shape[0], 1, 1, generator=source)
    return Draw(rows=rows, noise=noise, posterior_noise=posterior_noise, levels=levels, dropped=dropped)
