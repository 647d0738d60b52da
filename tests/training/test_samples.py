"""Hints of one byte a colour: a quarter of the memory, and the same run bit for bit; and what GPUs copy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from controlnet_kit.training.events import Alarm, Event, Probed, Validated
from controlnet_kit.training.feed import Feed
from controlnet_kit.training.loop import Trainer
from controlnet_kit.training.samples import Batch
from controlnet_kit.training.watch.watchers import watchers
from torch import Tensor
from training_runs import RandomSamples, configured, finished, of_kind, same, trainer

DATA = {"hints": "canny", "resolution": 64}
VALIDATION = {"every": 2, "count": 2, "steps": 2, "probe_every": 1}


@dataclass(frozen=True, kw_only=True)
class ByteHints(RandomSamples):
    """As a cache gives them."""

    def batch(self, rows: Tensor, posterior_noise: Tensor, dropped: Tensor) -> Batch:
        found = super().batch(rows, posterior_noise, dropped)
        return replace(found, hint=(255 * found.hint).round().byte())


@dataclass(frozen=True, kw_only=True)
class FloatHints(ByteHints):
    """The same colours in [0, 1]."""

    def batch(self, rows: Tensor, posterior_noise: Tensor, dropped: Tensor) -> Batch:
        found = super().batch(rows, posterior_noise, dropped)
        return replace(found, hint=found.hint.float() / 255)


def watched(folder: Path, samples: RandomSamples, target: dict[str, Any]) -> tuple[Trainer, list[Event]]:
    """A finished run with all that looks at hints."""
    config = configured(folder, data=DATA, target=target, validation=VALIDATION, run={"steps": 2})
    run = trainer(config, samples, watchers=watchers(config.validation))
    return run, finished(run)


@pytest.mark.parametrize("target", [{}, {"hint_encoder": "vae"}, {"kind": "lllite"}])
def test_bytes_are_trained_validated_and_guarded_as_floats(tmp_path: Path, target: dict[str, Any]) -> None:
    (bytes_, one), (floats, other) = (
        watched(tmp_path / kind.__name__, kind(), target) for kind in (ByteHints, FloatHints)
    )
    assert same(bytes_.weights(), floats.weights()) and not of_kind(one, Alarm)
    for found, wanted in zip(of_kind(one, Validated), of_kind(other, Validated), strict=True):
        assert found.scores == wanted.scores and np.array_equal(found.hints, wanted.hints)
    for found, wanted in zip(of_kind(one, Probed), of_kind(other, Probed), strict=True):
        assert found.values == wanted.values


def test_only_bytes_are_scaled_and_the_batch_stays_as_it_was() -> None:
    batch = ByteHints().batch(torch.arange(2), torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.bool))
    before, once = batch.hint.clone(), batch.to(torch.device("cpu"))
    assert batch.hint.dtype == torch.uint8 and torch.equal(batch.hint, before)
    assert torch.equal(once.hint, before.float() / 255) and once.to(torch.device("cpu")).hint is once.hint


@pytest.mark.skipif(not torch.cuda.is_available(), reason="memory is pinned for CUDA devices only")
def test_what_a_gpu_gets_is_pinned(tmp_path: Path) -> None:
    run = trainer(configured(tmp_path))
    feed = Feed(ByteHints(), run.draw, pinned=True)
    draw, batch = feed.read((0, 0, 2))
    feed.close()
    assert all(one.is_pinned() for one in (draw.noise, batch.latents, batch.hint, batch.context))
