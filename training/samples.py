"""`Samples`: encoded pairs that a training loop asks for batches. Everything random is given by the caller.

Shapes: B batch, C h w latent, M text tokens, D their width, A width of the vector y. Rows are numbered from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
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
    """B int64; on the CPU."""
    latent_hint: Tensor | None = None
    """B C h w float32, the hint as `data.latent_hints` has it; None where pixels are what the network takes."""

    @property
    def hint_as_latent(self) -> Tensor:
        """`latent_hint`; ValueError where there is none."""
        if self.latent_hint is None:
            raise ValueError("The network takes hints as latents, and these samples have pixels only.")
        return self.latent_hint

    def to(self, device: torch.device) -> Batch:
        """On a device, the hint in [0, 1] as networks take it; from pinned memory without waiting."""
        moved = self.each(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(moved, hint=moved.hint.float().div_(255)) if moved.hint.dtype == torch.uint8 else moved

    def pinned(self) -> Batch:
        """In memory that a GPU copies from without waiting."""
        return self.each(Tensor.pin_memory)

    def part(self, start: int, stop: int) -> Batch:
        """Some of the pairs."""
        return replace(self.each(lambda tensor: tensor[start:stop]), rows=self.rows[start:stop])

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """With all tensors changed that there are, but for the rows' numbers."""
        names = [one.name for one in fields(self) if one.name != "rows" and getattr(self, one.name) is not None]
        return replace(self, **{name: change(getattr(self, name)) for name in names})


def joined(one: Batch, other: Batch) -> Batch:
    """The pairs of both."""
    names = [field.name for field in fields(one) if getattr(one, field.name) is not None]
    return replace(one, **{name: torch.cat([getattr(one, name), getattr(other, name)]) for name in names})


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

    def key(self, row: int) -> str:
        """The name by which settings were drawn for its hint."""
        ...

    def batch(self, rows: Tensor, posterior_noise: Tensor, dropped: Tensor) -> Batch:
        """These rows (B, of one size), with `posterior_noise` (B C h w), prompts emptied where `dropped` (B bool).

        On the CPU; may be called from another thread.
        """
        ...
