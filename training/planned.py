"""From settings to rows, and from rows to what is encoded of them.

What can be refused comes before what costs: settings before pictures are read, pictures before they are encoded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .bases.base import Base
from .cache import CachedSamples, Shelves, digest_of_rows
from .config import DataConfig
from .data.buckets import shapes
from .data.captions import captioned, open_captioner
from .data.encode import Encoder, identities
from .data.formats.open import open_pairs
from .data.hints import HintMaker, hint_maker
from .data.lending import lending
from .data.memo import Memo
from .data.pairs import Pairs
from .data.plan import Plan, Recipe, Row, check_proportions, held_out_of, split
from .data.store import Progress, Store, silent
from .data.survey import survey

CPU = torch.device("cpu")


def default_folder() -> Path:
    """The user's folder for caches."""
    home = Path.home()
    places = {"win32": home / "AppData" / "Local", "darwin": home / "Library" / "Caches"}
    root = (
        os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or places.get(sys.platform, home / ".cache")
    )
    return Path(root) / "controlnet-kit" / "training"


@dataclass(frozen=True, kw_only=True)
class PlannedSamples:
    """Rows that can be encoded: all of their pictures were read once, and nothing is written yet."""

    rows: Sequence[Row]
    held_out: Sequence[Row]
    plan: Plan
    base: Base
    identities: Mapping[str, str]
    """Name of a store -> hash of what all its items depend on."""
    folder: Path
    memo: Memo
    workers: int
    device: torch.device
    """Where networks work, for as long as they are needed."""

    @property
    def sha256(self) -> str:
        """Of all pictures, prompts and settings."""
        return digest_of_rows(self.identities, self.rows)

    def encoded(self, progress: Progress = silent) -> CachedSamples:
        """Compute what is missing. May be called by several processes at once: they share the work.

        Raises OSError when the disk is full.
        """
        plan = self.plan
        items = {"latents": plan.latents.items, "hints": plan.hints.items, "texts": plan.texts.items}
        with lending(self.device) as lend:
            builds = Encoder(base=self.base, plan=plan, workers=self.workers, lend=lend).builds()
            shelves = {name: self.store(name).open(items[name], build, progress) for name, build in builds.items()}
        everything = CachedSamples(
            rows=self.rows,
            shelves=Shelves(**shelves),
            vector=self.base.vector,
            channels=self.base.codec.channels,
            factor=self.base.codec.factor,
            identities=self.identities,
        )
        return replace(everything, validation=replace(everything, rows=self.held_out))

    def store(self, name: str) -> Store:
        """Where the items of a kind are."""
        return Store(folder=self.folder / f"{name}-{self.identities[name]}", memo=self.memo, what=name)


def plan_samples(  # noqa: PLR0913, most of them are for some callers only
    config: DataConfig,
    base: Base,
    *,
    seed: int = 0,
    device: torch.device = CPU,
    pairs: Pairs | None = None,
    weights: Sequence[Path] | None = None,
    levels: bool = False,
    progress: Progress = silent,
) -> PlannedSamples:
    """The rows that the settings name for this base; captions that a network writes are written here.

    `seed` is for random crops and drawn settings of preprocessors; `device` is where networks work; `pairs` take the
    place of `config.path`; `weights` are folders of preprocessors' weights; with `levels` pictures and hints whose
    values cannot be right are refused. Raises DataError for pairs that cannot be used, ControlNetKitError for a
    preprocessor that cannot be run.
    """
    folder = Path(config.cache).expanduser() if config.cache else default_folder()
    maker = hint_maker(config, seed=seed, folders=weights)
    if maker is not None:
        maker.check()
    plan = Plan(recipe=recipe_of(config, base, maker, seed))
    pairs = open_pairs(config) if pairs is None else pairs
    held_out_of(len(pairs), config.validation)
    captioner = open_captioner(config.captioner) if config.captions == "automatic" else None
    memo = Memo(path=folder / "memo.sqlite")
    found = survey(pairs, memo, hints=maker is None, levels=levels, workers=config.workers, progress=progress)
    if config.crop == "none":
        check_proportions(pairs.name, found, plan.recipe.shapes)
    train, held_out = split(captioned(found, config, captioner, memo, device, progress), config.validation)
    return PlannedSamples(
        rows=plan.rows(train, flip=config.flip),
        held_out=tuple(map(plan.row, held_out)),
        plan=plan,
        base=base,
        identities=identities(base),
        folder=folder,
        memo=memo,
        workers=config.workers,
        device=device,
    )


def recipe_of(config: DataConfig, base: Base, maker: HintMaker | None, seed: int) -> Recipe:
    """What the settings mean for this base, whose UNet halves its latents at each level but the first."""
    multiple = base.codec.factor * 2 ** (len(base.unet.config.channel_mult) - 1)
    sizes = shapes(config.resolution, multiple, aspects=config.buckets)
    random = config.crop == "random"
    return Recipe(shapes=sizes, random_crop=random, variants=config.variants, seed=seed, maker=maker)
