"""Condition fidelity: the preprocessor that made the hints is run again on the pictures that were drawn from them.

Shapes: B pictures, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...cn_core.errors import ControlNetKitError
from ...cn_core.preprocess.fidelity.score import Fidelity, fidelity, of_pictures
from ..config import DataConfig
from ..data.origin import drawn_again
from .sampling import Pictures, to_images


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """How pictures are measured."""

    preprocessor: str
    redo: Callable[[Pictures, Sequence[str]], Tensor] | None
    """Pictures and the keys of their hints -> hints B 3 H W in [0, 1]; None: pictures are compared with real ones."""
    reason: str = ""
    """Why the preprocessor cannot be run, where there is one."""

    def __call__(self, drawn: Pictures, hints: Pictures, real: Pictures, keys: Sequence[str]) -> Fidelity:
        """How well `drawn` follows `hints`, or is like `real` where nothing makes such hints.

        `keys` are the hints' names, by which settings were drawn for them.
        """
        if self.redo is None:
            return of_pictures(to_images(real), to_images(drawn))
        return fidelity(self.preprocessor, to_images(hints), self.redo(drawn, keys))


def ruler(config: DataConfig, seed: int) -> Ruler:
    """For the settings' hints: made by a preprocessor, or given and of a condition that has the name of one.

    `seed` is the run's.
    """
    maker = drawn_again(config, seed)
    if maker is None:
        reason = "" if config.condition else "data.condition does not name the preprocessor that makes such hints."
        return Ruler(preprocessor=config.condition, redo=None, reason=reason)
    name = maker.entry.name
    try:
        _ = maker.run
    except ControlNetKitError as error:
        return Ruler(preprocessor=name, redo=None, reason=str(error))
    return Ruler(preprocessor=name, redo=lambda pictures, keys: to_images(np.stack(maker(list(pictures), keys))))
