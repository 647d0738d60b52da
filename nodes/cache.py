"""What was made of a hint, kept over queue runs: features of the network's hint encoder, latents of a VAE.

A cache belongs to one loaded control and its copies, and goes with them.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Protocol

import comfy.model_management
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ..cn_core.preprocess.frame_cache import digest

Features = Tensor | tuple[Tensor, ...]
"""What a network makes of a hint before it knows the timestep: tensors of R or 1 rows."""
CACHED_BYTES = 512 * 2**20


def moved(features: Features, device: torch.device) -> Features:
    """The same on `device`."""
    return features.to(device) if isinstance(features, Tensor) else tuple(part.to(device) for part in features)


def size(features: Features) -> int:
    """Bytes."""
    parts = (features,) if isinstance(features, Tensor) else features
    return sum(part.nbytes for part in parts)


class HintCache:
    """By contents, in main memory; the least recently used goes when there is more than `CACHED_BYTES`."""

    def __init__(self) -> None:
        self.entries: OrderedDict[Hashable, Features] = OrderedDict()
        self.digests = WeakIdKeyDictionary()

    def digest(self, pixels: Tensor) -> str:
        """The hash of a hint; pictures that travel through a graph do not change, so once for each tensor."""
        if pixels not in self.digests:
            self.digests[pixels] = digest(pixels)
        return self.digests[pixels]

    def get(self, key: Hashable, make: Callable[[], Features], device: torch.device) -> Features:
        """What `make` gave for `key`, now or earlier, on `device`."""
        if key in self.entries:
            self.entries.move_to_end(key)
            return moved(self.entries[key], device)
        features = make()
        if size(features) <= CACHED_BYTES:
            self.entries[key] = moved(features, torch.device("cpu"))
            while sum(map(size, self.entries.values())) > CACHED_BYTES:
                self.entries.popitem(last=False)
        return features


class Encoder(Protocol):
    """What the host's controls want of a VAE."""

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """B H W C -> latents."""
        ...

    def spacial_compression_encode(self) -> int:
        """Pixels for each latent position."""
        ...


class CachingEncoder:
    """A VAE that encodes the same picture once; in all else the VAE itself."""

    def __init__(self, vae: Encoder, cache: HintCache) -> None:
        self.vae = vae
        self.cache = cache

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """B H W C in [0, 1] -> B latents.

        One by one: pictures of a batch come again in other batches, and VAEs for videos would take them for frames.
        """
        device, vae = comfy.model_management.intermediate_device(), weakref.ref(self.vae)
        get, encode, pictures = self.cache.get, self.vae.encode, pixel_samples.split(1)
        found: list[Any] = [get((vae, digest(one)), partial(encode, one), device) for one in pictures]
        return torch.cat(found)

    def __getattr__(self, name: str) -> Any:
        """As the VAE has it."""
        if name == "vae":  # half made, by copy or pickle
            raise AttributeError(name)
        return getattr(self.vae, name)
