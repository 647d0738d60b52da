"""What detectors of one convolutional network have in common.

Shapes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..preprocessor import AnySettings
from .detector import like

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class NetworkDetector(Generic[AnySettings]):
    """A network and the function that draws hints with it."""

    network: nn.Module
    draw: Callable[[Any, Tensor, AnySettings], Tensor]
    """Network, B 3 H W in [0, 1] in its dtype and on its device, settings -> B 1 H W or B 3 H W."""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The one network."""
        return (self.network,)

    def __call__(self, images: Tensor, settings: AnySettings) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W in [0, 1]."""
        return self.draw(self.network, like(images, self.network), settings).to(images).clamp(0, 1).expand_as(images)


def padded(images: Tensor, multiple: int) -> Tensor:
    """B C H W with its last row and column repeated until both sides are multiples; crop with `[..., :H, :W]`."""
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def normalised(
    images: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, deviation: tuple[float, ...] = IMAGENET_DEVIATION
) -> Tensor:
    """B 3 H W in [0, 1] -> (x - mean) / deviation, channel by channel."""
    return (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(deviation)[:, None, None]


def mean_of_sides(logits: Iterable[Tensor], images: Tensor) -> Tensor:
    """Side outputs B 1 h w -> B 1 H W, edges in [0, 1]: the sigmoid of their mean at the pictures' size."""
    size = images.shape[2:]
    return torch.stack([F.interpolate(side, size=size, mode="bilinear") for side in logits]).mean(dim=0).sigmoid()


def safe(edges: Tensor, steps: int) -> Tensor:
    """B 1 H W in [0, 1] in `steps` levels above 0: floor(x (s + 1)) / s, as lllyasviel's; 0 leaves it as it is."""
    return (edges * (steps + 1)).floor().div(steps).clamp(max=1) if steps else edges
