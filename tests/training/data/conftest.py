"""Small data sets in every format, drawn from the tiny world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from controlnet_kit.training.bases import tiny
from controlnet_kit.training.bases.base import Base
from controlnet_kit.training.synth import world
from picture_files import Make, edges, save


@pytest.fixture
def make_pairs(tmp_path: Path) -> Make:
    """images/, hints/ (Canny) and captions/ with some compositions."""

    def make(count: int = 6, *, hints: bool = True, captions: bool = True, name: str = "set") -> Path:
        folder = tmp_path / name
        for seed in range(count):
            composition = world.compose(seed)
            save(folder / "images" / f"{seed:03d}.png", composition.image)
            if hints:
                save(folder / "hints" / f"{seed:03d}.png", edges(composition.image))
            if captions:
                (folder / "captions").mkdir(exist_ok=True)
                (folder / "captions" / f"{seed:03d}.txt").write_text(composition.caption)
        return folder

    return make


@pytest.fixture
def fill50k(tmp_path: Path) -> Path:
    """Three pairs in the tutorial's format."""
    folder = tmp_path / "fill50k"
    lines: list[str] = []
    for seed in range(3):
        composition = world.compose(seed)
        save(folder / "target" / f"{seed}.png", composition.image)
        save(folder / "source" / f"{seed}.png", edges(composition.image))
        row = {"source": f"source/{seed}.png", "target": f"target/{seed}.png", "prompt": composition.caption}
        lines.append(json.dumps(row))
    (folder / "prompt.json").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def tiny_base() -> Base:
    """The embedded base."""
    return tiny.as_base(tiny.load())
