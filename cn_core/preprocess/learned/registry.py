"""All preprocessors with networks: one table for nodes, trainer and command line.

detector = LEARNED["hed"].open([folder])                        folder: has the weights' files
with torch.inference_mode():
    detector(images, HEDSettings())                             images: B 3 H W in [0, 1]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import hed, mlsd
from .detector import LearnedPreprocessor

ALL: tuple[LearnedPreprocessor[Any], ...] = (
    *hed.ENTRIES,
    *mlsd.ENTRIES,
)
LEARNED: Mapping[str, LearnedPreprocessor[Any]] = {entry.name: entry for entry in sorted(ALL, key=lambda one: one.name)}
"""By name, in its order."""
