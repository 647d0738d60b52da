"""Pictures of things: emoji glyphs of the Noto Color Emoji font, trimmed, with their names."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT_PATHS = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf"),
)
BITMAP_SIZE = 109
"""The one pixel size that the font's bitmaps exist in."""

NAMES: dict[str, str] = {
    "apple": "🍎", "pear": "🍐", "lemon": "🍋", "banana": "🍌", "watermelon": "🍉", "grapes": "🍇",
    "strawberry": "🍓", "cherries": "🍒", "peach": "🍑", "pineapple": "🍍", "tomato": "🍅", "avocado": "🥑",
    "eggplant": "🍆", "carrot": "🥕", "corn": "🌽", "mushroom": "🍄", "bread": "🍞", "cheese": "🧀",
    "hamburger": "🍔", "pizza": "🍕", "donut": "🍩", "cookie": "🍪", "cake": "🎂", "icecream": "🍦",
    "cup": "☕", "cat": "🐱", "dog": "🐶", "fox": "🦊", "bear": "🐻", "panda": "🐼", "frog": "🐸",
    "pig": "🐷", "lion": "🦁", "monkey": "🐵", "chicken": "🐔", "penguin": "🐧", "bird": "🐦", "fish": "🐟",
    "whale": "🐳", "turtle": "🐢", "crab": "🦀", "octopus": "🐙", "butterfly": "🦋", "ladybug": "🐞",
    "car": "🚗", "bus": "🚌", "truck": "🚚", "airplane": "✈", "rocket": "🚀", "boat": "⛵", "house": "🏠",
    "tree": "🌳", "cactus": "🌵", "sunflower": "🌻", "rose": "🌹", "tulip": "🌷", "leaf": "🍁", "sun": "🌞",
    "moon": "🌙", "balloon": "🎈", "ball": "⚽", "basketball": "🏀", "guitar": "🎸", "gift": "🎁",
    "umbrella": "☂", "key": "🔑", "bell": "🔔", "lightbulb": "💡", "book": "📕", "crown": "👑",
    "ghost": "👻", "robot": "🤖",
}  # fmt: skip


def font_path() -> Path:
    """The installed emoji font; raises FileNotFoundError that names the package to install."""
    for path in FONT_PATHS:
        if path.is_file():
            return path
    searched = ", ".join(str(path) for path in FONT_PATHS)
    raise FileNotFoundError(f"Noto Color Emoji not found ({searched}); install the package fonts-noto-color-emoji.")


@functools.cache
def glyph(name: str) -> Image.Image:
    """The RGBA bitmap of the thing called `name`, cropped to what is visible."""
    font = ImageFont.truetype(str(font_path()), BITMAP_SIZE)
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((10, 10), NAMES[name], font=font, embedded_color=True)
    box = opaque(canvas, 32).getbbox()
    if box is None:
        raise ValueError(f"The emoji font draws nothing for {name!r}.")
    return canvas.crop(box)


def opaque(picture: Image.Image, threshold: int = 127) -> Image.Image:
    """Where an RGBA picture's alpha is above `threshold`: an "L" picture of 0 and 255."""
    alpha = np.asarray(picture.getchannel("A"))
    return Image.fromarray(np.where(alpha > threshold, 255, 0).astype(np.uint8))


def tinted(picture: Image.Image, rgb: tuple[int, int, int]) -> Image.Image:
    """Recolour a glyph: its shades stay, mid grey becomes `rgb`, the extremes stay black and white."""
    pixels = np.asarray(picture, dtype=np.float32)
    alpha = pixels[..., 3:] / 255
    shade = pixels[..., :3] @ np.asarray([0.299, 0.587, 0.114], dtype=np.float32)[:, None] / 255
    mean = float((shade * alpha).sum() / max(float(alpha.sum()), 1e-6))
    shade = np.where(shade < mean, shade / max(mean, 1e-3) * 0.5, 0.5 + (shade - mean) / max(1 - mean, 1e-3) * 0.5)
    colour = np.asarray(rgb, dtype=np.float32)
    dark, light = colour * 2 * shade, colour + (255 - colour) * (2 * shade - 1)
    recoloured = np.where(shade < 0.5, dark, light)
    return Image.fromarray(np.concatenate([recoloured, pixels[..., 3:]], axis=-1).astype(np.uint8), "RGBA")
