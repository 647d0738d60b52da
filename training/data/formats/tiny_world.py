"""The embedded base's own world as a data set that is drawn when asked for; its hints are silhouettes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...synth import world
from ..decoding import Pixels, Size
from ..pairs import Fault, Pair
from ..pictures import digest_of

KEPT = 64
"""Compositions, 64 KiB each: a picture is often read and hashed, or read with its silhouette."""
composed = lru_cache(KEPT)(world.compose)


@dataclass(frozen=True, kw_only=True)
class Composed:
    """The picture of a seed, or its silhouette."""

    seed: int
    silhouette: bool

    @property
    def name(self) -> str:
        """For messages."""
        return f"composition {self.seed}"

    def read(self) -> Pixels:
        """128 128 3 uint8 RGB."""
        composition = composed(self.seed)
        if self.silhouette:
            return np.repeat(composition.silhouette[..., None], 3, axis=2)
        return composition.image

    def size(self) -> Size:
        """Always the same."""
        return world.SIZE, world.SIZE

    def stamp(self) -> str:
        """The seed is all there is to it."""
        return f"tiny-world:{self.seed}:{self.silhouette}"

    def digest(self) -> str:
        """A hash of the pixels."""
        return digest_of(self.read().tobytes())


@dataclass(frozen=True, kw_only=True)
class TinyWorld:
    """Compositions with consecutive seeds."""

    count: int
    first_seed: int = 0
    faults: tuple[Fault, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return f"tiny world, {self.count} compositions"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Pair:
        if not 0 <= index < self.count:
            raise IndexError(index)
        seed = self.first_seed + index
        return Pair(
            key=f"{seed:08d}",
            image=Composed(seed=seed, silhouette=False),
            hint=Composed(seed=seed, silhouette=True),
            caption=world.caption(seed),
        )
