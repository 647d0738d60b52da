"""Pairs as a run reads them: latents' means and deviations, hints and embedded prompts, each computed once.

All of it lies on the disk under hashes of what it depends on (`data.store`): a picture that changed, another
preprocessor or another VAE make what depends on them anew, and nothing else. A row is a pair, or a variant of it.

Shapes: B batch, C h w latent, H W = 8h 8w pixels, M text tokens, D their width, P width of the pooled text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .data.pictures import hashed
from .data.plan import Row
from .data.store import Shelf
from .samples import Batch

Vector = Callable[[Tensor | None, Tensor], Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Shelves:
    """Where a row's parts are found, by the numbers that it has for them."""

    latents: Shelf
    hints: Shelf
    texts: Shelf


@dataclass(frozen=True, kw_only=True)
class CachedSamples:
    """`Samples` from the disk."""

    rows: Sequence[Row]
    shelves: Shelves
    vector: Vector
    """`Base.vector`."""
    channels: int
    """C."""
    factor: int
    """Pixels of a latent position."""
    identities: Mapping[str, str]
    """As planned."""
    validation: CachedSamples | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def held_out(self) -> CachedSamples:
        """The pairs kept for validation, which no other row shows; may be empty."""
        return self.validation or replace(self, rows=())

    @property
    def sha256(self) -> str:
        """Of all pictures, prompts and settings."""
        return digest_of_rows(self.identities, self.rows)

    @property
    def sizes(self) -> Mapping[tuple[int, int], Tensor]:
        """Latent size (h, w) -> rows, int64."""
        found: dict[tuple[int, int], list[int]] = {}
        for number in range(len(self.rows)):
            found.setdefault(self.latent_shape(number)[1:], []).append(number)
        return {size: torch.tensor(numbers) for size, numbers in sorted(found.items())}

    def latent_shape(self, row: int) -> tuple[int, int, int]:
        """C h w."""
        height, width = self.rows[row].placement.size
        return self.channels, height // self.factor, width // self.factor

    def caption(self, row: int) -> str:
        """The prompt as it was encoded."""
        return self.rows[row].caption

    def batch(self, rows: Tensor, posterior_noise: Tensor, dropped: Tensor) -> Batch:
        """These rows (B, of one size), with `posterior_noise` (B C h w), prompts emptied where `dropped` (B bool)."""
        chosen = [self.rows[row] for row in rows.tolist()]
        latents = [self.shelves.latents.item(row.latent) for row in chosen]
        mean, std = (torch.stack([latent[name] for latent in latents]).float() for name in ("mean", "std"))
        hints = [hint_pixels(self.shelves.hints.item(row.hint), row.placement.size) for row in chosen]
        texts = [
            self.shelves.texts.item(row.empty if drop else row.text)
            for row, drop in zip(chosen, dropped.tolist(), strict=True)
        ]
        pooled = torch.stack([text["pooled"] for text in texts]).float() if "pooled" in texts[0] else None
        numbers = torch.tensor([row.placement.numbers() for row in chosen], dtype=torch.float32)
        return Batch(
            latents=mean + std * posterior_noise,
            hint=torch.stack(hints),
            context=torch.stack([text["context"] for text in texts]).float(),
            y=self.vector(pooled, numbers),
            rows=rows,
        )


def hint_pixels(stored: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
    """What `packed` of data.encode wrote for one hint -> 3 H W uint8."""
    if "rgb" in stored:
        return stored["rgb"]
    if "grey" in stored:
        return stored["grey"][None].expand(3, *size)
    bits = np.unpackbits(stored["bits"].numpy(), axis=-1, count=size[1])
    return torch.from_numpy(bits * np.uint8(255))[None].expand(3, *size)


def digest_of_rows(identities: Mapping[str, str], rows: Sequence[Row]) -> str:
    """SHA-256 of all that rows depend on."""
    words = (hashed(sorted(identities.items())), *(row.words() for row in rows))
    return hashlib.sha256(repr(words).encode()).hexdigest()
