"""Pairs as a run reads them: latents' means and deviations, hints and embedded prompts, each computed once.

All of it lies on the disk under hashes of what it depends on (`data.store`): a picture that changed, another
preprocessor or another VAE make what depends on them anew, and nothing else. A row is a pair, or its mirror image.

Shapes: B batch, C h w latent, H W = 8h 8w pixels, M text tokens, D their width, P width of the pooled text.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .bases.base import Base
from .config import DataConfig
from .data.buckets import shapes
from .data.encode import Encoder, captioned, identities
from .data.formats.open import open_pairs
from .data.hints import HintMaker, hint_maker
from .data.memo import Memo
from .data.pairs import Pairs
from .data.pictures import hashed
from .data.plan import Plan, Recipe, Row, split
from .data.store import Progress, Shelf, Store, silent
from .data.survey import survey
from .samples import Batch

Vector = Callable[[Tensor | None, Tensor], Tensor | None]


def default_folder() -> Path:
    """The user's folder for caches."""
    home = Path.home()
    places = {"win32": home / "AppData" / "Local", "darwin": home / "Library" / "Caches"}
    root = (
        os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or places.get(sys.platform, home / ".cache")
    )
    return Path(root) / "controlnet-kit" / "training"


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
    identity: str
    """Hash of the settings."""
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
        words = (self.identity, *(row.words() for row in self.rows))
        return hashlib.sha256(repr(words).encode()).hexdigest()

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
            hint=torch.stack(hints).float() / 255,
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


def open_samples(
    config: DataConfig,
    base: Base,
    *,
    seed: int = 0,
    pairs: Pairs | None = None,
    weights: Sequence[Path] | None = None,
    progress: Progress = silent,
) -> CachedSamples:
    """The rows that the settings name, encoded for this base; what is missing is computed first.

    `seed` is for random crops and drawn settings of preprocessors; `pairs` take the place of `config.path`; `weights`
    are folders of preprocessors' weights. May be called by several processes at once: they share the work.
    Raises DataError for pairs that cannot be used, before anything is encoded.
    """
    folder = Path(config.cache).expanduser() if config.cache else default_folder()
    plan = Plan(recipe=recipe_of(config, base, hint_maker(config, seed=seed, folders=weights), seed))
    pairs = open_pairs(config) if pairs is None else pairs
    memo = Memo(path=folder / "memo.sqlite")
    given = plan.recipe.maker is None
    found = survey(pairs, memo, hints=given, workers=config.workers, progress=progress)
    train, held_out = split(captioned(found, config, memo, progress), config.validation)
    rows, held_out_rows = plan.rows(train, flip=config.flip), plan.rows(held_out, flip=False)
    builds = Encoder(base=base, plan=plan, workers=config.workers).builds()
    names = identities(base)
    items = {"latents": plan.latents.items, "hints": plan.hints.items, "texts": plan.texts.items}
    shelves = {
        name: Store(folder=folder / f"{name}-{names[name]}", memo=memo, what=name).open(items[name], build, progress)
        for name, build in builds.items()
    }
    everything = CachedSamples(
        rows=rows,
        shelves=Shelves(**shelves),
        vector=base.vector,
        channels=base.codec.channels,
        factor=base.codec.factor,
        identity=hashed(sorted(names.items())),
    )
    return replace(everything, validation=replace(everything, rows=held_out_rows))


def recipe_of(config: DataConfig, base: Base, maker: HintMaker | None, seed: int) -> Recipe:
    """What the settings mean for this base, whose UNet halves its latents at each level but the first."""
    multiple = base.codec.factor * 2 ** (len(base.unet.config.channel_mult) - 1)
    sizes = shapes(config.resolution, multiple, aspects=config.buckets)
    return Recipe(shapes=sizes, random_crop=config.crop == "random", seed=seed, maker=maker)
