"""The shipped base and a handful of real compositions for the trainer's tests."""

from __future__ import annotations

import pytest
from controlnet_kit.training.bases import tiny
from controlnet_kit.training.bases.base import Base
from controlnet_kit.training.tiny import cache


@pytest.fixture
def base() -> Base:
    """The shipped base, float32."""
    return tiny.as_base(tiny.load())


@pytest.fixture(scope="session")
def compositions() -> cache.Compositions:
    """48 compositions, drawn and encoded."""
    return cache.build(tiny.load().autoencoder, 0, 48)
