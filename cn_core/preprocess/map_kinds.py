"""What kind of map each preprocessor makes: it decides how maps are compared and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from ..files.conditions import preprocessor_of

MapKind = Literal["lines", "soft lines", "depth", "normal", "segmentation", "pose", "mask", "picture"]
"""lines: thin and white on black. soft lines: the same in shades of grey, or broad. mask: areas in black and white.
pose: skeletons and face contours. picture: all else."""
MAP_KINDS: tuple[MapKind, ...] = get_args(MapKind)
LIGHT_ON_DARK: tuple[MapKind, ...] = ("lines", "soft lines", "pose")
"""Kinds whose drawings are bright on black."""

KINDS: Mapping[str, MapKind] = {
    **dict.fromkeys(("canny", "auto_canny", "mlsd", "straight_lines"), "lines"),
    **dict.fromkeys(("softedge", "lineart", "lineart_anime", "pencil", "scribble", "xdog"), "soft lines"),
    **dict.fromkeys(("depth", "depth_remap", "face_depth"), "depth"),
    **dict.fromkeys(("normal", "normal_from_depth"), "normal"),
    **dict.fromkeys(("segmentation", "segmentation_palette"), "segmentation"),
    **dict.fromkeys(("openpose", "animalpose", "face_mesh"), "pose"),
    **dict.fromkeys(("binary", "threshold", "person_mask"), "mask"),
}
"""Preprocessor, or the short name of `cn_core.files.conditions` -> kind."""


def kind_of(preprocessor: str) -> MapKind:
    """Of any preprocessor: from the table, else by the words of its name ("hed": soft edges), else "picture"."""
    return KINDS.get(preprocessor) or KINDS.get(preprocessor_of(preprocessor) or "", "picture")
