"""Computing what caches keep: chunks of latents, hints and embedded prompts.

Shapes: N items of a chunk, B of them at once, C h w latent, H W pixels, M text tokens, D their width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..bases.base import Base
from ..errors import DataError
from .augment import cut_hint, cut_image
from .decoding import Pixels
from .hints import to_images
from .lending import Lend
from .pictures import hashed
from .plan import Example, Plan, Recipe
from .store import Build, Chunk
from .survey import threaded

PIXELS, PIXELS_ON_CPU = 1 << 20, 1 << 18
"""That go through the VAE or a preprocessor at once; one picture if it has more. A CPU gains nothing from more."""
PROMPTS = 32


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The networks and the plan."""

    base: Base
    plan: Plan
    workers: int
    lend: Lend
    """Called with each network that is about to work."""

    @property
    def recipe(self) -> Recipe:
        """Of the plan."""
        return self.plan.recipe

    def latents(self, part: Chunk) -> Mapping[str, Tensor]:
        """mean and std: N C h w float16."""
        self.lend(self.base.codec)
        examples = [self.plan.latents.sources[number] for number in part]
        on_cpu = all(weight.device.type == "cpu" for one in self.base.codec.modules() for weight in one.parameters())
        some_at_once = groups(examples, PIXELS_ON_CPU if on_cpu else PIXELS)
        posteriors = [self.base.codec.encode(to_images(self.images(some))) for some in some_at_once]
        return {
            "mean": torch.cat([posterior.mean.half().cpu() for posterior in posteriors]),
            "std": torch.cat([posterior.std.half().cpu() for posterior in posteriors]),
        }

    def hints(self, part: Chunk) -> Mapping[str, Tensor]:
        """What `packed` makes of N hints."""
        examples = [self.plan.hints.sources[number] for number in part]
        maker = self.recipe.maker
        if maker is None:
            return packed(list(threaded(given_hint, examples, self.workers)))
        self.lend(maker)
        parts = [
            maker(self.images(some), [example.key for example in some]) for some in groups(examples, PIXELS_ON_CPU)
        ]
        return packed([hint for part in parts for hint in part])

    def texts(self, part: Chunk) -> Mapping[str, Tensor]:
        """context N M D, and pooled N P where the base has it: float16 if that holds them."""
        self.lend(self.base.text)
        captions = [self.plan.texts.sources[number] for number in part]
        texts = [self.base.text.encode(captions[at : at + PROMPTS]) for at in range(0, len(captions), PROMPTS)]
        pooled = [text.pooled for text in texts if text.pooled is not None]
        context = {"context": halved(torch.cat([text.context.cpu() for text in texts]))}
        return context | ({"pooled": halved(torch.cat(pooled).cpu())} if pooled else {})

    def images(self, examples: Sequence[Example]) -> list[Pixels]:
        """The pictures as they are cut."""
        return list(threaded(placed_image, examples, self.workers))

    def builds(self) -> Mapping[str, Build]:
        """Name of a store -> what makes its chunks."""
        return {"latents": self.latents, "hints": self.hints, "texts": self.texts}


def identities(base: Base) -> Mapping[str, str]:
    """Name of a store -> hash of what all its items depend on."""
    return {
        "latents": hashed([base.codec.identity, base.family, 2]),
        "hints": hashed(["hints", 1]),
        "texts": hashed([base.text.identity, base.family, 2]),
    }


def groups(examples: Sequence[Example], pixels: int) -> list[Sequence[Example]]:
    """As many at once as have so many pixels together, or one."""
    height, width = examples[0].placement.size
    count = max(pixels // (height * width), 1)
    return [examples[start : start + count] for start in range(0, len(examples), count)]


def placed_image(example: Example) -> Pixels:
    """H W 3."""
    return cut_image(example.found.pair.image.read(), example.placement)


def given_hint(example: Example) -> Pixels:
    """H W 3."""
    hint = example.found.pair.hint
    if hint is None:
        raise DataError(f"{example.found.pair.key} has no hint. Set data.hints to a preprocessor that makes it.")
    return cut_hint(hint.read(), example.placement)


def packed(hints: Sequence[Pixels]) -> Mapping[str, Tensor]:
    """H W 3 each -> "bits" N H W/8 (black and white), "grey" N H W, or "rgb" N 3 H W; uint8."""
    stacked = np.stack(hints)
    grey = stacked[..., 0]
    if not (stacked == grey[..., None]).all():
        return {"rgb": torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))}
    if ((grey == 0) | (grey == 255)).all():
        return {"bits": torch.from_numpy(np.packbits(grey > 0, axis=-1))}
    return {"grey": torch.from_numpy(np.ascontiguousarray(grey))}


def halved(values: Tensor) -> Tensor:
    """In float16, or float32 where that would overflow."""
    half = values.half()
    return half if half.isfinite().all() else values.float()
