"""Hints of single pictures, kept by their contents: change one picture of a hundred, and one hint is made anew.

For preprocessors that take longer than the hash (some milliseconds for each megapixel): those with networks.
Shapes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class FrameCache:
    """Hints in main memory; the least recently used go when there are more than `capacity` bytes of them."""

    def __init__(self, capacity: int = 512 * 2**20) -> None:
        self.capacity = capacity
        self.hints: OrderedDict[Hashable, Tensor] = OrderedDict()

    def run(self, images: Tensor, key: Hashable, make: Callable[[Tensor], Tensor]) -> Tensor:
        """B C H W -> what `make` gives for it, B ...; it gets only those pictures that it did not see under this key.

        `key` tells preprocessor and settings apart. `make` has to treat every picture by itself.
        """
        names = [(key, digest(image)) for image in images]
        places = {name: place for place, name in enumerate(names) if name not in self.hints}
        fresh: dict[Hashable, Tensor] = {}
        if places:
            made = make(images[list(places.values())])
            fresh = dict(zip(places, made.unbind(), strict=True))
        found = [fresh[name] if name in fresh else self.hints[name].to(images.device) for name in names]
        for name, hint in zip(names, found, strict=True):
            self.keep(name, hint)
        return torch.stack(found)

    def keep(self, name: Hashable, hint: Tensor) -> None:
        """Put it last, and forget the first ones if there is no room."""
        if name not in self.hints:
            self.hints[name] = hint.detach().to("cpu", copy=True)
        self.hints.move_to_end(name)
        while sum(kept.nbytes for kept in self.hints.values()) > self.capacity:
            self.hints.popitem(last=False)


def digest(image: Tensor) -> str:
    """A hash of a picture's contents, shape and dtype."""
    contents = image.detach().cpu().contiguous()
    code = hashlib.blake2b(f"{tuple(contents.shape)} {contents.dtype}".encode(), digest_size=16)
    code.update(contents.flatten().view(torch.uint8).numpy().data)
    return code.hexdigest()
