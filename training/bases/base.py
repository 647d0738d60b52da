"""`Base`: a frozen UNet with what encodes pictures and prompts for it.

Shapes: B batch, H W pixels, C h w latent, M text tokens, D their width, P width of the pooled text, A of the vector y.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from ...cn_core.diffusion import NoiseSchedule, Prediction
from ...cn_core.networks.layers import timestep_embedding
from ...cn_core.networks.unet import UNet

SIZE_WIDTH = 256
"""Numbers for each of SDXL's six sizes in y."""


def weights_hash(tensors: Mapping[str, Tensor], *settings: object) -> str:
    """SHA-256 of weights by their names, and of settings that go with them."""
    code = hashlib.sha256(repr(settings).encode())
    for name, value in sorted(tensors.items()):
        code.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        code.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return code.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """What a VAE's encoder says of pictures: latents are mean + std * noise. Already times the scaling factor."""

    mean: Tensor
    """B C h w."""
    std: Tensor
    """B C h w; zero for a deterministic encoder."""


class Codec(Protocol):
    """A VAE. Pictures are RGB in [0, 1]; latents are scaled as the UNet takes them."""

    @property
    def factor(self) -> int:
        """Pixels per latent side: 8."""
        ...

    @property
    def channels(self) -> int:
        """Of the latent: 4."""
        ...

    @property
    def identity(self) -> str:
        """A hash of what its latents depend on: caches are keyed by it."""
        ...

    def encode(self, images: Tensor) -> Posterior:
        """B 3 H W -> B C H/8 W/8, without gradients."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """B C h w -> B 3 8h 8w in [0, 1], without gradients."""
        ...

    def modules(self) -> tuple[nn.Module, ...]:
        """What may be moved to another device for a while."""
        ...


@dataclass(frozen=True, kw_only=True)
class Text:
    """Encoded prompts."""

    context: Tensor
    """B M D."""
    pooled: Tensor | None
    """B P; None for families without it."""


class TextEncoder(Protocol):
    """Prompts to what the UNet attends to."""

    @property
    def identity(self) -> str:
        """A hash of what the encoded prompts depend on: caches are keyed by it."""
        ...

    @property
    def tokens(self) -> int:
        """M."""
        ...

    def encode(self, captions: Sequence[str]) -> Text:
        """One row for each caption, without gradients."""
        ...

    def words_lost(self, caption: str) -> int:
        """How many words of the caption's end do not fit the window."""
        ...

    def modules(self) -> tuple[nn.Module, ...]:
        """What may be moved to another device for a while."""
        ...


def words_beyond(caption: str, fits: Callable[[str], bool]) -> int:
    """How many words have to be taken from a caption's end until what is left fits."""
    words = caption.split()
    if fits(caption):
        return 0
    return bisect_left(range(len(words)), True, key=lambda lost: fits(" ".join(words[: len(words) - lost])))


@dataclass(frozen=True, kw_only=True)
class Base:
    """A frozen model. A run owns it: it moves the UNet to its device and dtype."""

    name: str
    family: str
    """SD 1.x, SD 2.x, SDXL or SD-shaped."""
    sha256: str
    """Of the file (or the UNet's file in a folder); goes into the metadata of what is trained on it."""
    unet: UNet
    """In evaluation mode, without gradients."""
    prediction: Prediction
    codec: Codec
    text: TextEncoder
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    """That the model was trained with."""

    def vector(self, pooled: Tensor | None, sizes: Tensor) -> Tensor | None:
        """y (B A) from the pooled text (B P) and SDXL's six sizes; None for families without it.

        `sizes` (B 6) are original height and width, crop top and left, target height and width, in pixels.
        """
        if self.unet.config.adm_in_channels is None:
            return None
        if pooled is None:
            raise ValueError(f"{self.name} needs the pooled text, and its text encoder gave none.")
        numbers = timestep_embedding(sizes.flatten(), SIZE_WIDTH).reshape(len(sizes), -1)
        return torch.cat([pooled, numbers.to(pooled)], dim=1)
