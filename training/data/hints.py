"""Hints made from pictures by any preprocessor, with settings that may be drawn anew for each of them.

The paper does so for Canny: random thresholds make a ControlNet that takes any.
Shapes: B batch, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from ...cn_core.preprocess.learned.detector import Detector, LearnedPreprocessor
from ...cn_core.preprocess.learned.registry import LEARNED
from ...cn_core.preprocess.preprocessor import Preprocessor
from ...cn_core.preprocess.registry import PREPROCESSORS
from ..config import DataConfig, Value
from ..errors import DataError
from ..tables import nearest
from .augment import rng_of
from .decoding import Pixels
from .weights import default_folder

Entry: TypeAlias = Preprocessor[Any] | LearnedPreprocessor[Any]
Range: TypeAlias = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class HintMaker:
    """A preprocessor and how it is set."""

    entry: Entry
    values: Mapping[str, Value]
    """What differs from its defaults."""
    ranges: Mapping[str, Range]
    """Settings that are drawn: lowest and highest value."""
    folders: tuple[Path, ...]
    """Where weights are looked for."""
    seed: int = 0

    @cached_property
    def detector(self) -> Detector | None:
        """The network, loaded at first use; None for preprocessors without one."""
        return self.entry.open(self.folders, self.settings("")) if isinstance(self.entry, LearnedPreprocessor) else None

    @property
    def run(self) -> Callable[[Tensor, Any], Tensor]:
        """B 3 H W in [0, 1] and settings -> B 3 H W."""
        return self.entry if isinstance(self.entry, Preprocessor) else cast("Detector", self.detector)

    def modules(self) -> tuple[nn.Module, ...]:
        """What may be moved to another device for a while."""
        return self.detector.modules if self.detector else ()

    def check(self) -> None:
        """Raise ControlNetKitError for packages or weights that are missing, without loading them."""
        if isinstance(self.entry, LearnedPreprocessor):
            self.entry.check_packages()
            self.entry.paths(self.folders, self.settings(""))

    def drawn(self, key: str) -> Mapping[str, Value]:
        """The values for a picture: they depend on its key, the seed and nothing else."""
        kinds = {one.name: one for one in fields(self.entry.settings)}
        return {**self.values, **{name: self.draw(kinds[name], limits, key) for name, limits in self.ranges.items()}}

    def draw(self, field: Field[Any], limits: Range, key: str) -> Value:
        """One value, evenly distributed."""
        rng = rng_of("hint", self.seed, key, field.name)
        if isinstance(field.metadata["min"], int):
            return int(rng.integers(int(limits[0]), int(limits[1]) + 1))
        return float(rng.uniform(*limits))

    def settings(self, key: str) -> Any:
        """The settings for a picture."""
        return self.entry.configured(self.drawn(key))

    def words(self, key: str) -> tuple[object, ...]:
        """What a hint depends on beside the picture, for hashes."""
        return (self.entry.name, repr(self.settings(key)))

    @torch.inference_mode()
    def __call__(self, images: Sequence[Pixels], keys: Sequence[str]) -> list[Pixels]:
        """Pictures of one size -> their hints."""
        if not self.ranges:
            return to_pixels(self.run(to_images(images), self.settings("")))
        pairs = zip(images, keys, strict=True)
        return [to_pixels(self.run(to_images([image]), self.settings(key)))[0] for image, key in pairs]


def hint_maker(config: DataConfig, *, seed: int = 0, folders: Sequence[Path] | None = None) -> HintMaker | None:
    """What the settings name; None where hints are given. Raises DataError for names and values that are unknown."""
    if config.hints == "given":
        if config.condition in known():
            maker_of(config.condition, config.preprocessor_params, config.randomise)
        elif config.preprocessor_params or config.randomise:
            raise DataError(
                'data.hints is "given", so data.preprocessor_params and data.randomise say how they were made: name '
                "the preprocessor in data.condition, or leave both empty."
            )
        return None
    return maker_of(config.hints, config.preprocessor_params, config.randomise, seed=seed, folders=folders)


def known() -> Mapping[str, Entry]:
    """All preprocessors by name."""
    return {**PREPROCESSORS, **LEARNED}


def entry_of(name: str) -> Entry:
    """The preprocessor of this name. Raises DataError that names the nearest one."""
    table = known()
    if name not in table:
        raise DataError(f"There is no preprocessor {name!r}.{nearest(name, table)} Known: {', '.join(sorted(table))}.")
    return table[name]


def maker_of(
    name: str,
    values: Mapping[str, Value],
    ranges: Mapping[str, Range],
    *,
    seed: int = 0,
    folders: Sequence[Path] | None = None,
) -> HintMaker:
    """A preprocessor with its settings. Raises DataError, or ControlNetKitError for those that it does not have."""
    entry = entry_of(name)
    kinds = {one.name: one for one in fields(entry.settings)}
    for setting, limits in ranges.items():
        known_number = setting in kinds and "min" in kinds[setting].metadata
        if not known_number or not -math.inf < limits[0] <= limits[1] < math.inf:
            numbers = ", ".join(one for one, field in kinds.items() if "min" in field.metadata)
            raise DataError(
                f"data.randomise: {setting} = {list(limits)} is no range of a setting of {name}; these can be drawn "
                f"as [low, high]: {numbers or 'none'}."
            )
        for end in limits:
            entry.configured({setting: int(end) if isinstance(kinds[setting].metadata["min"], int) else end})
    entry.configured(values)
    places = tuple(folders) if folders else (default_folder(),)
    return HintMaker(entry=entry, values=values, ranges=ranges, folders=places, seed=seed)


def to_images(pictures: Sequence[Pixels]) -> Tensor:
    """H W 3 uint8 each -> B 3 H W float32 in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float() / 255


def to_pixels(images: Tensor) -> list[Pixels]:
    """B 3 H W in [0, 1] -> H W 3 uint8 each."""
    levels = images.float().mul(255).round().clamp(0, 255).to(torch.uint8)
    return [level.movedim(0, -1).contiguous().numpy() for level in levels.cpu()]
