"""All preprocessors with networks: one table for nodes, trainer and command line.

detector = LEARNED["hed"].open([folder])                        folder: has the weights' files
with torch.inference_mode():
    detector(images, HEDSettings())                             images: B 3 H W in [0, 1]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import (
    blazepose,
    controlnet_hed,
    depth_anything,
    dwpose,
    face_mesh,
    hed,
    line_networks,
    midas,
    mlsd,
    mlsd_torch,
    normal_bae,
    openpose,
    person_mask,
    pidinet,
    sam,
    segmentation,
    teed,
    zoe_depth,
)
from .detector import LearnedPreprocessor

ALL: tuple[LearnedPreprocessor[Any], ...] = (
    *blazepose.ENTRIES,
    *controlnet_hed.ENTRIES,
    *depth_anything.ENTRIES,
    *dwpose.ENTRIES,
    *face_mesh.ENTRIES,
    *hed.ENTRIES,
    *line_networks.ENTRIES,
    *midas.ENTRIES,
    *mlsd.ENTRIES,
    *mlsd_torch.ENTRIES,
    *normal_bae.ENTRIES,
    *openpose.ENTRIES,
    *person_mask.ENTRIES,
    *pidinet.ENTRIES,
    *sam.ENTRIES,
    *segmentation.ENTRIES,
    *teed.ENTRIES,
    *zoe_depth.ENTRIES,
)
LEARNED: Mapping[str, LearnedPreprocessor[Any]] = {entry.name: entry for entry in sorted(ALL, key=lambda one: one.name)}
"""By name, in its order."""
