"""Named colours: the words of the captions and the RGB values that they stand for."""

from __future__ import annotations

import numpy as np

RGB: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 45),
    "orange": (245, 140, 30),
    "yellow": (250, 215, 50),
    "green": (55, 165, 70),
    "cyan": (80, 205, 220),
    "blue": (45, 100, 220),
    "navy": (25, 35, 95),
    "purple": (135, 70, 190),
    "pink": (245, 140, 185),
    "brown": (130, 85, 50),
    "beige": (235, 215, 175),
    "white": (245, 245, 245),
    "gray": (140, 140, 140),
    "black": (25, 25, 25),
}
TINTS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "gray")
"""Colours a glyph can be recoloured with: light enough that its drawing stays visible."""
MIN_DISTANCE = 110
"""RGB distance from which two colours are told apart at a glance."""


def jittered(name: str, rng: np.random.Generator, amount: int = 10) -> tuple[int, int, int]:
    """RGB of `name` with each channel moved by up to `amount` levels."""
    values = np.asarray(RGB[name]) + rng.integers(-amount, amount + 1, size=3)
    red, green, blue = np.clip(values, 0, 255).tolist()
    return red, green, blue


def distinct(count: int, rng: np.random.Generator, names: tuple[str, ...] = tuple(RGB)) -> list[str]:
    """Draw `count` colour names whose RGB values lie at least MIN_DISTANCE apart."""
    while True:
        chosen = [str(name) for name in rng.choice(names, size=count, replace=False)]
        values = np.asarray([RGB[name] for name in chosen], dtype=np.float32)
        gaps = np.linalg.norm(values[:, None] - values[None], axis=-1) + 1e9 * np.eye(count)
        if gaps.min() >= MIN_DISTANCE:
            return chosen
