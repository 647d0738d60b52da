"""The tiny world: captioned compositions of emoji, coloured shapes and patterns on plain or graded backgrounds.

Everything is drawn from one seed. Captions use the words of `vocabulary()` only, so that a word-level text
encoder can read all of them: "blue car and apple on pink background", "red star on navy background",
"orange and white pattern".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from . import glyphs, palette

SIZE = 128
SUPERSAMPLING = 2
HELD_OUT_SEED = 900_000
"""Compositions from this seed on are never trained on."""
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "hexagon", "ring")


@dataclass(frozen=True, kw_only=True)
class Composition:
    """One picture of the world."""

    image: np.ndarray
    """H W 3, uint8 RGB."""
    silhouette: np.ndarray
    """H W, uint8: 255 where a thing is, 0 on the background."""
    caption: str


def vocabulary() -> list[str]:
    """Every word a caption can contain, in a fixed order."""
    return sorted({*palette.RGB, *glyphs.NAMES, *SHAPES, "and", "on", "background", "pattern"})


def compose(seed: int) -> Composition:
    """The composition of this seed: 60 % things, 20 % shapes, 20 % patterns."""
    return _composed(seed, whole=True)


def caption(seed: int) -> str:
    """The caption of that composition, for which little is drawn: only of two things the first, whose size counts."""
    return _composed(seed, whole=False).caption


def compositions(first_seed: int, count: int) -> Iterator[Composition]:
    """`count` compositions with consecutive seeds."""
    return (compose(seed) for seed in range(first_seed, first_seed + count))


Drawing = tuple[Image.Image, str]
"""An RGBA picture of a thing and the words for it."""


def _composed(seed: int, *, whole: bool) -> Composition:
    """All of it, or the words and a picture that is not finished."""
    rng = np.random.default_rng(seed)
    kind = rng.random()
    if kind < 0.6:
        return _things(rng, _draw_glyph, whole=whole)
    if kind < 0.8:
        return _things(rng, _draw_shape, whole=whole)
    return _pattern(rng, whole=whole)


def _things(
    rng: np.random.Generator, draw: Callable[[np.random.Generator, int, str], Drawing], *, whole: bool
) -> Composition:
    background, background_words, background_colour = _background(rng)
    silhouette = Image.new("L", background.size)
    count = int(rng.choice([1, 2], p=[0.65, 0.35]))
    words = []
    for index in range(count):
        longest = int(rng.integers(68, 118) if count == 1 else rng.integers(48, 66))
        picture, word = draw(rng, longest, background_colour)
        words.append(word)
        if not whole and index == count - 1:
            break
        picture = _turned(rng, picture, longest)
        position = _place(rng, picture.size, index, count)
        background.paste(picture, position, picture)
        silhouette.paste(255, position, glyphs.opaque(picture))
    caption = f"{' and '.join(words)} on {background_words} background"
    return Composition(image=np.asarray(background), silhouette=np.asarray(silhouette), caption=caption)


def _background(rng: np.random.Generator) -> tuple[Image.Image, str, str]:
    """A plain or graded background, its words, and the colour that things must differ from."""
    if rng.random() < 0.75:
        (name,) = palette.distinct(1, rng)
        return Image.new("RGB", (SIZE, SIZE), palette.jittered(name, rng)), name, name
    first, second = palette.distinct(2, rng)
    angle = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / (SIZE - 1) - 0.5
    ramp = np.clip(xs * np.cos(angle) + ys * np.sin(angle) + 0.5, 0, 1)[..., None]
    start, end = (np.asarray(palette.jittered(name, rng), dtype=np.float32) for name in (first, second))
    pixels = start * (1 - ramp) + end * ramp
    return Image.fromarray(pixels.astype(np.uint8)), f"{first} and {second}", first


def _place(rng: np.random.Generator, size: tuple[int, int], index: int, count: int) -> tuple[int, int]:
    """The upper left corner for thing `index` of `count`: anywhere inside, or in its own half."""
    left, right = SIZE * index // count, SIZE * (index + 1) // count
    x = rng.integers(left, max(right - size[0], left) + 1)
    y = rng.integers(0, max(SIZE - size[1], 0) + 1)
    return int(x), int(y)


def _turned(rng: np.random.Generator, picture: Image.Image, longest: int) -> Image.Image:
    """Flip, rotate by up to 20 degrees and scale to `longest` pixels."""
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.rotate(rng.uniform(-20, 20), resample=Image.Resampling.BICUBIC, expand=True)
    scale = longest / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _draw_glyph(rng: np.random.Generator, _longest: int, background: str) -> Drawing:
    name = str(rng.choice(list(glyphs.NAMES)))
    picture = glyphs.glyph(name)
    if rng.random() < 0.4:
        (tint,) = palette.distinct(1, rng, tuple(name for name in palette.TINTS if name != background))
        picture, name = glyphs.tinted(picture, palette.jittered(tint, rng)), f"{tint} {name}"
    return picture, name


def _draw_shape(rng: np.random.Generator, longest: int, background: str) -> Drawing:
    shape = str(rng.choice(SHAPES))
    while True:
        (colour,) = palette.distinct(1, rng)
        if np.linalg.norm(np.subtract(palette.RGB[colour], palette.RGB[background])) > palette.MIN_DISTANCE:
            break
    side = longest * SUPERSAMPLING
    picture = Image.new("RGBA", (side, side))
    rgb = palette.jittered(colour, rng)
    draw = ImageDraw.Draw(picture)
    if shape in ("circle", "ring"):
        draw.ellipse((0, 0, side - 1, side - 1), fill=(*rgb, 255))
        if shape == "ring":
            inset = side * 0.24
            draw.ellipse((inset, inset, side - inset, side - inset), fill=(0, 0, 0, 0))
    else:
        draw.polygon([(x * (side - 1), y * (side - 1)) for x, y in _outline(shape)], fill=(*rgb, 255))
    return picture, f"{colour} {shape}"


def _outline(shape: str) -> list[tuple[float, float]]:
    """The corners of a shape in the unit square."""
    if shape == "star":
        radii = [0.5 if corner % 2 == 0 else 0.2 for corner in range(10)]
    elif shape == "heart":
        t = np.linspace(0, 2 * np.pi, 60)
        x, y = 16 * np.sin(t) ** 3, 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return list(zip((x / 34 + 0.5).tolist(), (0.46 - y / 34).tolist(), strict=True))
    elif shape == "square":
        return [(0, 0), (1, 0), (1, 1), (0, 1)]
    else:
        radii = [0.5] * {"triangle": 3, "diamond": 4, "hexagon": 6}[shape]
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii) - np.pi / 2
    return [(0.5 + r * float(np.cos(a)), 0.5 + r * float(np.sin(a))) for r, a in zip(radii, angles, strict=True)]


def _pattern(rng: np.random.Generator, *, whole: bool) -> Composition:
    """Blobs, strokes or contour fields in two or three named colours: edges of every direction and scale."""
    names = palette.distinct(int(rng.integers(2, 4)), rng)
    words = f"{' and '.join(names)} pattern"
    if not whole:
        blank = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
        return Composition(image=blank, silhouette=blank[..., 0], caption=words)
    colours = [palette.jittered(name, rng) for name in names]
    draw = _contours if rng.random() < 0.5 else _strokes
    labels = draw(rng, len(names))
    # Smooth at twice the size, so that edges are anti-aliased like everything else in the world.
    pixels = np.asarray(colours, dtype=np.uint8)[labels]
    image = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(np.where(labels > 0, 255, 0).astype(np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    silhouette = np.where(mask > 127, 255, 0).astype(np.uint8)
    return Composition(image=image, silhouette=silhouette, caption=words)


def _contours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Level sets of smooth noise: labels 0..count-1 at the supersampled size."""
    size = SIZE * SUPERSAMPLING
    noise = rng.standard_normal((size, size)).astype(np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(7, 28)))
    levels = np.quantile(field, np.linspace(0, 1, count + 1)[1:-1])
    return np.digitize(field, levels)


def _strokes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random ellipses, polygons and thick lines: labels 0..count-1 at the supersampled size."""
    size = SIZE * SUPERSAMPLING
    labels = np.zeros((size, size), dtype=np.uint8)
    for _ in range(int(rng.integers(5, 18))):
        label = int(rng.integers(0, count))
        centre = rng.integers(0, size, size=2)
        kind = rng.random()
        if kind < 0.35:
            axes = rng.integers(10, 70, size=2).tolist()
            cv2.ellipse(labels, centre.tolist(), axes, float(rng.uniform(0, 180)), 0, 360, label, -1)
        elif kind < 0.65:
            corners = centre + rng.integers(-70, 71, size=(int(rng.integers(3, 7)), 2))
            cv2.fillPoly(labels, [corners.astype(np.int32)], label)
        else:
            points = centre + np.cumsum(rng.integers(-45, 46, size=(int(rng.integers(2, 6)), 2)), axis=0)
            cv2.polylines(labels, [points.astype(np.int32)], False, label, int(rng.integers(5, 22)))
    return labels
