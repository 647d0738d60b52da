"""From surveyed pairs to rows, and what has to be computed for them: each latent, hint and prompt once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..errors import DataError
from .augment import Placement, place
from .buckets import nearest
from .decoding import Size
from .hints import HintMaker
from .pictures import hashed
from .store import Item
from .survey import Surveyed

SMALL_SET = 10
"""Of so many pairs, a share held out is at least one."""
NOTICED, NOTICED_IN_BUCKETS = 0.02, 0.2
"""Share of a picture that may be cut off without asking; buckets come in steps."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """A pair and its prompt."""

    found: Surveyed
    caption: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What becomes of each pair."""

    shapes: tuple[Size, ...]
    random_crop: bool
    variants: int
    seed: int
    maker: HintMaker | None
    """None: hints are given."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A pair as it is seen in a row."""

    found: Surveyed
    placement: Placement
    key: str
    """The pair's, which variant of it this is, and whether it is mirrored."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """An example, its prompt, and the numbers of its parts in their stores."""

    example: Example
    caption: str
    latent: int
    hint: int
    text: int
    empty: int
    """Of the empty prompt."""
    hint_name: str
    """Hash of all that the hint depends on."""
    hint_key: str
    """The name by which settings were drawn for it: a given hint's is the pair's."""

    @property
    def placement(self) -> Placement:
        """Where it is cut."""
        return self.example.placement

    def words(self) -> tuple[object, ...]:
        """All that it depends on, for hashes."""
        return (self.example.key, self.example.found.image.digest, self.placement.words(), self.caption, self.hint_name)


@dataclass(frozen=True, kw_only=True)
class Wanted(Generic[T]):
    """Items of a store, each once, and what they are made of."""

    items: list[Item] = field(default_factory=list[Item])
    sources: list[T] = field(default_factory=list[T])
    numbers: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, item: Item, source: T) -> int:
        """The number of an item, which is new or the same as one before."""
        if item.name not in self.numbers:
            self.numbers[item.name] = len(self.items)
            self.items.append(item)
            self.sources.append(source)
        return self.numbers[item.name]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that rows need."""

    recipe: Recipe
    latents: Wanted[Example] = field(default_factory=lambda: Wanted[Example]())
    hints: Wanted[Example] = field(default_factory=lambda: Wanted[Example]())
    texts: Wanted[str] = field(default_factory=lambda: Wanted[str]())

    def rows(self, pairs: Sequence[Captioned], *, flip: bool) -> tuple[Row, ...]:
        """The training's: each pair in all its variants, and with `flip` each of those mirrored as well."""
        sides = (False, True) if flip else (False,)
        variants = range(self.recipe.variants)
        return tuple(self.row(pair, number, flip=side) for pair in pairs for number in variants for side in sides)

    def row(self, pair: Captioned, variant: int = 0, *, flip: bool = False) -> Row:
        """Plan one row."""
        found, recipe = pair.found, self.recipe
        key = f"{found.pair.key}{f' variant {variant}' if variant else ''}{' mirrored' if flip else ''}"
        size = found.image.size
        shape = nearest(size, recipe.shapes)
        random_key = hashed(["crop", recipe.seed, key]) if recipe.random_crop else None
        example = Example(found=found, placement=place(size, shape, flip=flip, random_key=random_key), key=key)
        neighbours, words = hashed([key]), example.placement.words()
        latent = Item(name=hashed([found.image.digest, *words]), place=neighbours, kind=shape)
        hint = Item(name=hashed([*hint_words(example, recipe.maker), *words]), place=neighbours, kind=shape)
        return Row(
            example=example,
            caption=pair.caption,
            latent=self.latents.add(latent, example),
            hint=self.hints.add(hint, example),
            text=self.text(pair.caption),
            empty=self.text(""),
            hint_name=hint.name,
            hint_key=found.pair.key if recipe.maker is None else key,
        )

    def text(self, caption: str) -> int:
        """Plan one prompt."""
        name = hashed([caption])
        return self.texts.add(Item(name=name, place=name), caption)


def hint_words(example: Example, maker: HintMaker | None) -> tuple[object, ...]:
    """What a hint depends on, without its placement."""
    found = example.found
    if maker is None:
        return ("given", found.hint and found.hint.digest, found.hint and found.hint.size)
    return ("made", found.image.digest, *maker.words(example.key))


def check_proportions(name: str, found: Sequence[Surveyed], shapes: Sequence[Size]) -> None:
    """Raise DataError for pictures of which training at these shapes would cut off more than goes unnoticed."""
    allowed = NOTICED if len(shapes) == 1 else NOTICED_IN_BUCKETS
    cut = [one for one in found if lost(one.image.size, nearest(one.image.size, shapes)) > allowed]
    if not cut:
        return
    height, width = cut[0].image.size
    many = f"{name}: {len(cut)} of {len(found)} pictures do not fit ({cut[0].pair.key} is {width}x{height})"
    if len(shapes) == 1:
        raise DataError(
            f"{many}, and training takes squares. Set data.buckets to true to keep their proportions, or data.crop to "
            "centre or random to cut them."
        )
    raise DataError(f"{many}: their sides differ too much. Set data.crop to centre or random to cut them.")


def lost(size: Size, shape: Size) -> float:
    """The share of a picture that is cut off when it takes the proportions of a shape."""
    ratio = size[0] * shape[1] / (size[1] * shape[0])
    return 1 - min(ratio, 1 / ratio)


def split(pairs: Sequence[Captioned], held_out: float) -> tuple[list[Captioned], list[Captioned]]:
    """(to train on, held out): `held_out_of` them, chosen by their names, so that it hardly ever changes.

    All pairs of one picture are on one side; there are more held out where the last one chosen has several. Raises
    DataError when nothing would be left.
    """
    count = held_out_of(len(pairs), held_out)
    digests = [pair.found.image.digest for pair in pairs]
    copies, chosen, held = Counter(digests), set[str](), 0
    for row in sorted(range(len(pairs)), key=lambda row: hashed([pairs[row].found.pair.key])):
        if held < count and digests[row] not in chosen:
            chosen.add(digests[row])
            held += copies[digests[row]]
    if held == len(pairs):
        raise DataError(
            f"data.validation holds out {count} of {len(pairs)} pairs, and those of one picture stay together; nothing "
            "is left to train on."
        )
    return (
        [pair for pair, digest in zip(pairs, digests, strict=True) if digest not in chosen],
        [pair for pair, digest in zip(pairs, digests, strict=True) if digest in chosen],
    )


def held_out_of(pairs: int, held_out: float) -> int:
    """How many pairs: a share below 1 or a count. Raises DataError when none would be left to train on."""
    share = held_out * pairs
    count = int(held_out) if held_out >= 1 else max(round(share), 1 if share and pairs >= SMALL_SET else 0)
    if count >= pairs:
        raise DataError(f"data.validation holds out {count} of {pairs} pairs; nothing is left to train on.")
    return count
