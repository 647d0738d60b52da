"""What all preprocessors have in common that make a hint of a picture alone: how they are called, named and set.

Shapes: B batch, H W pixels, h w pixels at another resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Generic, Literal, TypeVar, get_args

from torch import Tensor

from ..errors import ControlNetKitError
from .frames import at_resolution
from .settings import Settings

AnySettings = TypeVar("AnySettings", bound=Settings)
Group = Literal["lines", "depth, normals, motion", "poses and faces", "regions", "colour and detail"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""What preprocessors' hints are about: the submenus of their nodes, in the order in which people look through them."""


@dataclass(frozen=True, kw_only=True)
class Preprocessor(Generic[AnySettings]):
    """Pictures in, hints out."""

    name: str
    """Short, as `cn_core.files.conditions` has it."""
    node_id: str
    """Of its node, for good: trained files name it in their metadata."""
    title: str
    group: Group
    description: str
    settings: type[AnySettings]
    function: Callable[[Tensor, AnySettings], Tensor]
    """B 3 H W in [0, 1] -> B 3 H W of the same size, dtype and device."""
    aliases: tuple[str, ...] = ()
    """Other words that people search it by."""

    def __call__(self, images: Tensor, settings: AnySettings | None = None, *, resolution: int = 0) -> Tensor:
        """B 3 H W -> B 3 h w: the hint at the resolution (short side in pixels) at which it was made; 0: as it is.

        Raises HintError for pictures that are empty, too large, not finite or not RGB.
        """
        return self.function(at_resolution(images, resolution), settings or self.settings())

    def configured(self, values: Mapping[str, object]) -> AnySettings:
        """Settings from plain values, such as a file's metadata; what is not named has its default.

        Raises ControlNetKitError for names it does not have and values it does not allow.
        """
        return configured(self.settings, values, self.name)


def configured(settings: type[AnySettings], values: Mapping[str, object], name: str) -> AnySettings:
    """The same for the settings of any preprocessor; `name` is its own."""
    if unknown := values.keys() - {one.name for one in fields(settings)}:
        raise ControlNetKitError(f"The preprocessor {name} has no setting {', '.join(sorted(unknown))}.")
    return settings(**values)
