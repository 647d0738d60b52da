"""Without a cache: the same batches as with one, and nothing on the disk but what is known of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from controlnet_kit.training.bases.base import Base
from controlnet_kit.training.config import DataConfig
from controlnet_kit.training.data.latent_hints import LatentHints, encoded
from controlnet_kit.training.data.live import LiveShelf
from controlnet_kit.training.encoded import EncodedSamples
from controlnet_kit.training.errors import DataError
from controlnet_kit.training.planned import plan_samples
from controlnet_kit.training.samples import Batch
from picture_files import Make
from torch import Tensor
from training_runs import configured, finished, same, trainer

DRAWN = {"hints": "canny", "randomise": {"low_threshold": (10, 90), "high_threshold": (100, 250)}}


def config(folder: Path, **changes: Any) -> DataConfig:
    """The folder at the tiny base's size, its cache beside it."""
    settings = DataConfig(path=str(folder), resolution=128, validation=2, cache=str(folder.parent / "cache"))
    return replace(settings, **changes)


def made(base: Base, settings: DataConfig, latent_hints: LatentHints = "none") -> EncodedSamples:
    """Samples."""
    return plan_samples(settings, base, latent_hints=latent_hints).encoded()


def batch_of(samples: EncodedSamples, *rows: int) -> Batch:
    """Pairs, by default three of them, one of them twice and without its prompt."""
    source = torch.Generator().manual_seed(3)
    chosen = torch.tensor(rows or [2, 0, 2, 1])
    noise = torch.randn(len(chosen), *samples.latent_shape(0), generator=source)
    return samples.batch(chosen, noise, torch.arange(len(chosen)) == 2)


@pytest.mark.parametrize("more", [{}, DRAWN], ids=["given", "drawn"])
@pytest.mark.parametrize("latent_hints", ["none", "ctrlora", "instruct_pix2pix"])
def test_batches_are_those_of_a_cache(
    make_pairs: Make, tiny_base: Base, more: dict[str, Any], latent_hints: LatentHints
) -> None:
    folder = make_pairs(6)
    live, kept = (made(tiny_base, config(folder, cached=cached, **more), latent_hints) for cached in (False, True))
    assert live.sha256 == kept.sha256
    for some, others, rows in ((live, kept, ()), (live.held_out, kept.held_out, (1, 0, 1))):
        one, other = batch_of(some, *rows), batch_of(others, *rows)
        assert torch.equal(one.hint, other.hint) and torch.equal(one.rows, other.rows)
        for name in ("latents", "context") + (() if latent_hints == "none" else ("latent_hint",)):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=2e-3, rtol=1e-3)


def test_nothing_is_kept(make_pairs: Make, tiny_base: Base) -> None:
    folder = make_pairs(6)
    batch_of(made(tiny_base, config(folder, cached=False), "ctrlora"))
    assert [path.name for path in (folder.parent / "cache").iterdir()] == ["memo.sqlite"]


@pytest.mark.parametrize("latent_hints", ["ctrlora", "instruct_pix2pix"])
def test_latents_of_hints_are_what_the_autoencoder_makes_of_them(
    make_pairs: Make, tiny_base: Base, latent_hints: LatentHints
) -> None:
    batch = batch_of(made(tiny_base, config(make_pairs(6)), latent_hints))
    expected = encoded(latent_hints, tiny_base, batch.hint.float() / 255)
    assert batch.latent_hint is not None and batch.latent_hint.shape == batch.latents.shape
    torch.testing.assert_close(batch.latent_hint, expected, atol=2e-3, rtol=1e-3)


def test_each_way_has_its_own_cache(make_pairs: Make, tiny_base: Base) -> None:
    folder = make_pairs(6)
    assert len({made(tiny_base, config(folder), way).sha256 for way in get_args(LatentHints)}) == 3
    names = sorted(path.name.rpartition("-")[0] for path in (folder.parent / "cache").iterdir() if path.is_dir())
    assert names == ["hints", "latent-hints", "latent-hints", "latents", "texts"]


def test_items_are_made_once_for_a_call_and_for_the_same_call_after_it() -> None:
    parts: list[tuple[int, ...]] = []

    def build(part: tuple[int, ...]) -> Mapping[str, Tensor]:
        parts.append(part)
        return {"value": torch.tensor(part)}

    shelf = LiveShelf(build)
    for wanted in ([4, 2, 4], [4, 2, 4], [2]):
        assert [int(item["value"]) for item in shelf.items(wanted)] == wanted
    assert parts == [(4, 2), (2,)]


def test_validation_may_move_the_autoencoder(make_pairs: Make, base: Base) -> None:
    """Meanwhile the next batch is encoded by another one."""
    samples = made(base, config(make_pairs(6), cached=False))
    before = batch_of(samples, 3, 1)
    batch_of(samples)
    (autoencoder,) = base.codec.modules()
    autoencoder.to("meta")
    assert torch.equal(batch_of(samples, 3, 1).latents, before.latents)


def test_a_run_is_the_same_one(make_pairs: Make, tmp_path: Path, tiny_base: Base) -> None:
    weights: list[dict[str, Tensor]] = []
    for name, cached in (("live", False), ("again", False), ("kept", True)):
        samples = made(tiny_base, config(tmp_path / "set" if weights else make_pairs(6), cached=cached))
        run = trainer(configured(tmp_path / name, run={"steps": 3, "batch": 2}), samples)
        finished(run)
        weights.append(dict(run.weights()))
    live, again, kept = weights
    assert same(live, again)
    for name, value in kept.items():
        torch.testing.assert_close(live[name], value, atol=1e-3, rtol=1e-2)


def test_a_picture_that_went_ends_the_run_and_the_steps_before_are_kept(
    make_pairs: Make, tmp_path: Path, tiny_base: Base
) -> None:
    folder = make_pairs(6)
    run = trainer(
        configured(tmp_path / "run", run={"steps": 9, "batch": 2}), made(tiny_base, config(folder, cached=False))
    )
    with pytest.raises(DataError, match=r"\d\d\d\.png"):
        for event in run.run():
            if event.number == 2:
                for path in (folder / "images").iterdir():
                    path.unlink()
    assert run.done >= 2 and run.keeper.saved == run.done


def test_hints_are_bytes(make_pairs: Make, tiny_base: Base) -> None:
    hint = batch_of(made(tiny_base, config(make_pairs(6), cached=False))).hint
    assert hint.dtype == torch.uint8 and set(np.unique(hint.numpy())) == {0, 255}
