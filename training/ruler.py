"""Condition fidelity: the preprocessor that made the hints is run again on the pictures that were drawn from them.

Shapes: B pictures, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..cn_core.errors import ControlNetKitError
from ..cn_core.preprocess.fidelity.score import Fidelity, fidelity, of_pictures
from .config import DataConfig
from .data.hints import HintMaker
from .data.origin import origin
from .sampling import Pictures, to_images


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """How pictures are measured."""

    preprocessor: str
    redo: Callable[[Pictures], Tensor] | None
    """Pictures -> hints B 3 H W in [0, 1]; None: pictures are compared with the real ones."""
    reason: str = ""
    """Why the preprocessor cannot be run, where there is one."""

    def __call__(self, drawn: Pictures, hints: Pictures, real: Pictures) -> Fidelity:
        """How well `drawn` follows `hints`, or is like `real` where nothing makes such hints."""
        if self.redo is None:
            return of_pictures(to_images(real), to_images(drawn))
        return fidelity(self.preprocessor, to_images(hints), self.redo(drawn))


def ruler(config: DataConfig) -> Ruler:
    """For the settings' hints: made by a preprocessor, or given and of a condition that has the name of one."""
    maker = origin(config)
    if maker is None:
        reason = "" if config.condition else "data.condition does not name the preprocessor that makes such hints."
        return Ruler(preprocessor=config.condition, redo=None, reason=reason)
    name = maker.entry.name
    try:
        _ = maker.run
    except ControlNetKitError as error:
        return Ruler(preprocessor=name, redo=None, reason=str(error))
    return Ruler(preprocessor=name, redo=lambda pictures: again(maker, pictures))


def again(maker: HintMaker, pictures: Pictures) -> Tensor:
    """Hints of pictures, B 3 H W in [0, 1]."""
    return to_images(np.stack(maker(list(pictures), [""] * len(pictures))))
