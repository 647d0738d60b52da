"""From settings to rows, and from rows to what is encoded of them.

What can be refused comes before what costs: settings before pictures are read, pictures before they are encoded.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch

from .bases.base import Base
from .config import DataConfig
from .data.buckets import shapes
from .data.captions import captioned, open_captioner
from .data.encode import LATENT_HINTS, Encoder, identities
from .data.formats.open import open_pairs
from .data.hints import HintMaker, hint_maker
from .data.latent_hints import LatentHints
from .data.lending import Lend, lending, put
from .data.live import LiveShelf
from .data.memo import Memo
from .data.pairs import Pairs
from .data.plan import Plan, Recipe, Row, check_proportions, held_out_of, split
from .data.store import Build, Item, Progress, Readable, Store, silent
from .data.survey import check_levels, survey
from .encoded import EncodedSamples, Shelves, digest_of_rows

CPU = torch.device("cpu")
Open: TypeAlias = Callable[[str, Sequence[Item], Build], Readable]
"""A store's name, its items and what makes them -> access to them."""


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
    latent_hints: LatentHints
    cached: bool

    @property
    def sha256(self) -> str:
        """Of all pictures, prompts and settings."""
        return digest_of_rows(self.identities, self.rows)

    def encoded(self, progress: Progress = silent) -> EncodedSamples:
        """Compute what is missing in the cache; or nothing yet, if each batch is to be encoded when it is needed.

        May be called by several processes at once: they share the work. Raises OSError when the disk is full.
        """
        if not self.cached:
            return self.samples(self.shelves(self.resident(), lambda _name, _items, build: LiveShelf(build)))
        with lending(self.device) as lend:
            encoder = self.encoder(self.base, lend)
            shelves = self.shelves(encoder, lambda name, items, build: self.store(name).open(items, build, progress))
        return self.samples(shelves)

    def encoder(self, base: Base, lend: Lend) -> Encoder:
        """With this base's networks."""
        return Encoder(base=base, plan=self.plan, workers=self.workers, lend=lend, kind=self.latent_hints)

    def resident(self) -> Encoder:
        """Whose networks stay on the device.

        They work in the feed's thread, while validation may move the base's autoencoder: so that one is a copy.
        """
        base, maker = replace(self.base, codec=copy.deepcopy(self.base.codec)), self.plan.recipe.maker
        for network in (base.codec, base.text, *([] if maker is None else [maker])):
            put(network, self.device)
        return self.encoder(base, lambda _network: None)

    def shelves(self, encoder: Encoder, open_: Open) -> Shelves:
        """Of all that rows need; prompts first, whose tokenizer may be missing."""
        plan = self.plan
        texts = open_("texts", plan.texts.items, encoder.texts)
        latents = open_("latents", plan.latents.items, encoder.latents)
        hints = open_("hints", plan.hints.items, encoder.hints)
        if self.latent_hints == "none":
            return Shelves(latents=latents, hints=hints, texts=texts)
        as_latents = open_(LATENT_HINTS, plan.hints.items, encoder.latent_hints(hints))
        return Shelves(latents=latents, hints=hints, texts=texts, latent_hints=as_latents)

    def samples(self, shelves: Shelves) -> EncodedSamples:
        """The rows with what is encoded of them."""
        everything = EncodedSamples(
            rows=self.rows,
            shelves=shelves,
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
    latent_hints: LatentHints = "none",
    pairs: Pairs | None = None,
    weights: Sequence[Path] | None = None,
    levels: bool = False,
    progress: Progress = silent,
) -> PlannedSamples:
    """The rows that the settings name for this base; captions that a network writes are written here.

    `seed` is for random crops and drawn settings of preprocessors; `device` is where networks work; `latent_hints` are
    made beside the hints if the network takes those; `pairs` take the place of `config.path`; `weights` are folders of
    preprocessors' weights; with `levels` pictures and hints whose values cannot be right are refused. Raises DataError
    for pairs that cannot be used, ControlNetKitError for a preprocessor that cannot be run.
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
    with memo.alone(pairs.name):
        found = survey(pairs, memo, hints=maker is None, workers=config.workers, progress=progress)
        if levels:
            check_levels(pairs.name, found)
        if config.crop == "none":
            check_proportions(pairs.name, found, plan.recipe.shapes)
        captions = captioned(found, config, captioner, memo, device, progress)
    train, held_out = split(captions, config.validation)
    return PlannedSamples(
        rows=plan.rows(train, flip=config.flip),
        held_out=tuple(map(plan.row, held_out)),
        plan=plan,
        base=base,
        identities=identities(base, latent_hints),
        folder=folder,
        memo=memo,
        workers=config.workers,
        device=device,
        latent_hints=latent_hints,
        cached=config.cached,
    )


def recipe_of(config: DataConfig, base: Base, maker: HintMaker | None, seed: int) -> Recipe:
    """What the settings mean for this base, whose UNet halves its latents at each level but the first."""
    multiple = base.codec.factor * 2 ** (len(base.unet.config.channel_mult) - 1)
    sizes = shapes(config.resolution, multiple, aspects=config.buckets)
    random = config.crop == "random"
    return Recipe(shapes=sizes, random_crop=random, variants=config.variants, seed=seed, maker=maker)
