"""Computing what a run reads: latents, hints and embedded prompts, in chunks for a cache, or for a batch.

Shapes: N items of a chunk, B of them at once, C h w latent, H W pixels, M text tokens, D their width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bases.base import Base
from ..errors import DataError
from . import latent_hints
from .augment import cut_hint, cut_image
from .decoding import Pixels, Size
from .hints import to_images
from .latent_hints import LatentHints
from .lending import Lend
from .packing import packed, unpacked
from .pictures import hashed
from .plan import Example, Plan, Recipe
from .store import Build, Chunk, Readable
from .survey import threaded

PIXELS, PIXELS_ON_CPU = 1 << 20, 1 << 18
"""That go through the VAE or a preprocessor at once; one picture if it has more. A CPU gains nothing from more."""
PROMPTS = 32
LATENT_HINTS = "latent-hints"
"""Their store; the others are called as what they keep is."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The networks and the plan."""

    base: Base
    plan: Plan
    workers: int
    lend: Lend
    """Called with each network that is about to work."""
    kind: LatentHints = "none"
    """Whose way it is of making latents of hints."""

    @property
    def recipe(self) -> Recipe:
        """Of the plan."""
        return self.plan.recipe

    def latents(self, part: Chunk) -> Mapping[str, Tensor]:
        """mean and std: N C h w float16."""
        self.lend(self.base.codec)
        examples = [self.plan.latents.sources[number] for number in part]
        some_at_once = groups(examples, self.pixels)
        posteriors = [self.base.codec.encode(to_images(self.images(some))) for some in some_at_once]
        return {
            "mean": torch.cat([posterior.mean.half().cpu() for posterior in posteriors]),
            "std": torch.cat([posterior.std.half().cpu() for posterior in posteriors]),
        }

    @property
    def pixels(self) -> int:
        """That go through the VAE at once."""
        on_cpu = all(weight.device.type == "cpu" for one in self.base.codec.modules() for weight in one.parameters())
        return PIXELS_ON_CPU if on_cpu else PIXELS

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

    def latent_hints(self, hints: Readable) -> Build:
        """For a store of latents of hints, by the numbers of these: N C h w float16."""

        def build(part: Chunk) -> Mapping[str, Tensor]:
            self.lend(self.base.codec)
            size = self.plan.hints.sources[part[0]].placement.size
            count, found = at_once(size, self.pixels), hints.items(part)
            latents: list[Tensor] = []
            for start in range(0, len(part), count):
                pixels = torch.stack([unpacked(hint, size) for hint in found[start : start + count]])
                latents.append(latent_hints.encoded(self.kind, self.base, pixels.float() / 255).half().cpu())
            return {"latent": torch.cat(latents)}

        return build


def identities(base: Base, kind: LatentHints = "none") -> Mapping[str, str]:
    """Name of a store -> hash of what all its items depend on."""
    latents = {} if kind == "none" else {LATENT_HINTS: hashed([base.codec.identity, base.family, kind, 1])}
    return latents | {
        "latents": hashed([base.codec.identity, base.family, 2]),
        "hints": hashed(["hints", 1]),
        "texts": hashed([base.text.identity, base.family, 2]),
    }


def groups(examples: Sequence[Example], pixels: int) -> list[Sequence[Example]]:
    """As many at once as have so many pixels together, or one."""
    count = at_once(examples[0].placement.size, pixels)
    return [examples[start : start + count] for start in range(0, len(examples), count)]


def at_once(size: Size, pixels: int) -> int:
    """How many pictures of this size have so many pixels together, or one."""
    return max(pixels // (size[0] * size[1]), 1)


def placed_image(example: Example) -> Pixels:
    """H W 3."""
    return cut_image(example.found.pair.image.read(), example.placement)


def given_hint(example: Example) -> Pixels:
    """H W 3."""
    hint = example.found.pair.hint
    if hint is None:
        raise DataError(f"{example.found.pair.key} has no hint. Set data.hints to a preprocessor that makes it.")
    return cut_hint(hint.read(), example.placement)


def halved(values: Tensor) -> Tensor:
    """In float16, or float32 where that would overflow."""
    half = values.half()
    return half if half.isfinite().all() else values.float()
