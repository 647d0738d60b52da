"""`Samples`: encoded pairs that a training loop asks for batches. Everything random is given by the caller.

Shapes: B batch, C h w latent, M text tokens, D their width, A width of the vector y. Rows are numbered from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one latent size."""

    latents: Tensor
    """B C h w float32, scaled: mean + std * the posterior noise given."""
    hint: Tensor
    """B 3 8h 8w: uint8 from 0 to 255, a quarter of the memory, or float32 in [0, 1]. After `to` it is the latter."""
    context: Tensor
    """B M D; the empty prompt's where it was dropped."""
    y: Tensor | None
    """B A; None for families without it."""
    rows: Tensor
    """B int64."""

    def to(self, device: torch.device) -> Batch:
        """On a device, the hint in [0, 1] as networks take it; from pinned memory without waiting."""
        y = None if self.y is None else self.y.to(device, non_blocking=True)
        latents, hint, context = (t.to(device, non_blocking=True) for t in (self.latents, self.hint, self.context))
        if hint.dtype == torch.uint8:
            hint = hint.float().div_(255)
        return Batch(latents=latents, hint=hint, context=context, y=y, rows=self.rows)

    def pinned(self) -> Batch:
        """In memory that a GPU copies from without waiting."""
        y = None if self.y is None else self.y.pin_memory()
        latents, hint, context = (t.pin_memory() for t in (self.latents, self.hint, self.context))
        return Batch(latents=latents, hint=hint, context=context, y=y, rows=self.rows)


class Samples(Protocol):
    """What a run trains on."""

    def __len__(self) -> int: ...

    @property
    def sha256(self) -> str:
        """Of pairs and settings."""
        ...

    @property
    def sizes(self) -> Mapping[tuple[int, int], Tensor]:
        """Latent size (h, w) -> the rows of that size, int64. Every row is in one of them."""
        ...

    @property
    def held_out(self) -> Samples:
        """The rows kept for validation, numbered from 0; may be empty."""
        ...

    def latent_shape(self, row: int) -> tuple[int, int, int]:
        """C h w."""
        ...

    def caption(self, row: int) -> str:
        """The prompt as it was encoded."""
        ...

    def batch(self, rows: Tensor, posterior_noise: Tensor, dropped: Tensor) -> Batch:
        """These rows (B, of one size), with `posterior_noise` (B C h w), prompts emptied where `dropped` (B bool).

        On the CPU; may be called from another thread.
        """
        ...
