"""The shipped base and a handful of real compositions for the trainer's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from controlnet_kit.training import base as bases
from controlnet_kit.training.tiny import cache

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@pytest.fixture
def base() -> bases.FrozenBase:
    """The shipped base, float32."""
    return bases.load(ASSETS)


@pytest.fixture(scope="session")
def compositions() -> cache.Compositions:
    """48 compositions, drawn and encoded."""
    return cache.build(bases.load(ASSETS).autoencoder, 0, 48)
