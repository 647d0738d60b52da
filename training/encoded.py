"""Pairs as a run reads them: latents' means and deviations, hints and embedded prompts.

As a rule each is computed once and lies on the disk under a hash of what it depends on (`data.store`): a picture that
changed, another preprocessor or another VAE make what depends on them anew, and nothing else. Or all of it is computed
for each batch (`data.live`). A row is a pair, or a variant of it.

Shapes: B batch, C h w latent, H W = 8h 8w pixels, M text tokens, D their width, P width of the pooled text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .data.packing import unpacked
from .data.pictures import hashed
from .data.plan import Row
from .data.store import Readable
from .samples import Batch

Vector = Callable[[Tensor | None, Tensor], Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Shelves:
    """Where a row's parts are found, by the numbers that it has for them."""

    latents: Readable
    hints: Readable
    texts: Readable
    latent_hints: Readable | None = None
    """By the numbers of the hints; None where pixels are what the network takes."""


@dataclass(frozen=True, kw_only=True)
class EncodedSamples:
    """`Samples` of pictures and prompts."""

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
    validation: EncodedSamples | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def held_out(self) -> EncodedSamples:
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

    def key(self, row: int) -> str:
        """The name by which settings were drawn for its hint."""
        return self.rows[row].hint_key

    def batch(self, rows: Tensor, posterior_noise: Tensor, dropped: Tensor) -> Batch:
        """These rows (B, of one size), with `posterior_noise` (B C h w), prompts emptied where `dropped` (B bool)."""
        chosen = [self.rows[row] for row in rows.tolist()]
        latents = self.shelves.latents.items([row.latent for row in chosen])
        mean, std = (torch.stack([latent[name] for latent in latents]).float() for name in ("mean", "std"))
        hints, size = [row.hint for row in chosen], chosen[0].placement.size
        captions = [row.empty if drop else row.text for row, drop in zip(chosen, dropped.tolist(), strict=True)]
        texts = self.shelves.texts.items(captions)
        pooled = torch.stack([text["pooled"] for text in texts]).float() if "pooled" in texts[0] else None
        numbers = torch.tensor([row.placement.numbers() for row in chosen], dtype=torch.float32)
        return Batch(
            latents=mean + std * posterior_noise,
            hint=torch.stack([unpacked(hint, size) for hint in self.shelves.hints.items(hints)]),
            context=torch.stack([text["context"] for text in texts]).float(),
            y=self.vector(pooled, numbers),
            rows=rows,
            latent_hint=self.latent_hint(hints),
        )

    def latent_hint(self, hints: Sequence[int]) -> Tensor | None:
        """Of hints by their numbers: B C h w."""
        shelf = self.shelves.latent_hints
        return None if shelf is None else torch.stack([one["latent"] for one in shelf.items(hints)]).float()


def digest_of_rows(identities: Mapping[str, str], rows: Sequence[Row]) -> str:
    """SHA-256 of all that rows depend on."""
    words = (hashed(sorted(identities.items())), *(row.words() for row in rows))
    return hashlib.sha256(repr(words).encode()).hexdigest()
