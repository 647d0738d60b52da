"""The types of hint that a union ControlNet tells apart: their names, in the order of the network's embedding.

Sources: the model cards of xinsir's ControlNet-Union and ProMax (SDXL), of InstantX's FLUX.1-dev-Controlnet-Union and
of Shakker Labs' FLUX.1-dev-ControlNet-Union-Pro.
"""

from __future__ import annotations

from .errors import ControlNetKitError

XINSIR = (
    *("openpose", "depth", "hed/pidi/scribble/ted", "canny/lineart/anime_lineart/mlsd", "normal", "segment"),
    *("tile", "repaint"),
)
"""Six in Union, all eight in ProMax; a slash separates names of one type."""
FLUX = ("canny", "tile", "depth", "blur", "pose", "gray", "lq")
"""Both cards name these seven; the files have room for ten. Union-Pro 2.0 has no types at all."""


def names(family: str, count: int) -> tuple[str, ...]:
    """The types of a union file with room for `count`; () for 0. `family` is "Flux", or one of Stable Diffusion's."""
    return (FLUX if family == "Flux" else XINSIR)[:count]


def index(name: str, family: str, count: int) -> int:
    """The number of a type, by its whole name or one of those that share it; case does not matter.

    Raises ControlNetKitError that lists what the file has.
    """
    known, wanted = names(family, count), name.strip().lower()
    for number, shared in enumerate(known):
        if wanted in (shared, *shared.split("/")):
            return number
    raise ControlNetKitError(
        f'This ControlNet has no type "{name}". '
        + (f"Choose one of: {', '.join(known)}." if known else "It is not a union file: leave the type out.")
    )
