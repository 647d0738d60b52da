"""Validation: the same pictures from the same weights, between a floor and a ceiling, and no trace in the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.canny import CannySettings, canny
from controlnet_kit.training.commands.annotate import main as annotate
from controlnet_kit.training.config import DataConfig
from controlnet_kit.training.data.hints import maker_of
from controlnet_kit.training.data.origin import recorded
from controlnet_kit.training.events import Validated
from controlnet_kit.training.watch.ruler import ruler
from controlnet_kit.training.watch.sampling import to_images, to_pixels
from controlnet_kit.training.watch.validate import Validation
from controlnet_kit.training.watch.watchers import watchers
from picture_files import picture, save
from PIL import Image
from training_runs import RandomSamples, configured, finished, of_kind, same, trainer

DATA = {"hints": "canny", "resolution": 64}
QUICK = {"every": 2, "count": 2, "steps": 2, "probe_every": 2}


def test_pictures_are_drawn_measured_and_the_same_each_time(tmp_path: Path) -> None:
    config = configured(
        tmp_path / "run",
        data=DATA,
        validation={**QUICK, "probe_every": 0},
        optimizer={"learning_rate": 0.0},
        run={"steps": 5},
    )
    found = of_kind(finished(trainer(config, watchers=[Validation()])), Validated)
    assert [one.number for one in found] == [2, 4, 5]
    first = found[0]
    assert first.measure == "edge_f1" and first.scores["ceiling"] >= 0 and first.captions == ("row 0", "row 1")
    assert first.images.shape == first.hints.shape == first.real.shape == (2, 64, 64, 3)
    assert np.array_equal(first.images, first.without), "nothing was learned, so control changes nothing"
    assert first.scores["edge_f1"] == first.scores["floor"]
    assert all(np.array_equal(one.images, first.images) for one in found)


def test_averaged_weights_draw_the_pictures(tmp_path: Path) -> None:
    tables = {"data": DATA, "validation": {**QUICK, "probe_every": 0}, "run": {"steps": 4}}
    lagging = configured(tmp_path / "lagging", **tables, optimizer={"learning_rate": 1e-2, "ema": 0.99999})
    last = of_kind(finished(trainer(lagging, watchers=[Validation()])), Validated)[-1]
    plain = configured(tmp_path / "plain", **tables, optimizer={"learning_rate": 1e-2})
    other = of_kind(finished(trainer(plain, watchers=[Validation()])), Validated)[-1]
    distance = [np.abs(one.images.astype(int) - one.without.astype(int)).mean() for one in (last, other)]
    assert distance[0] < distance[1]


def test_watching_changes_nothing(tmp_path: Path) -> None:
    tables = {"data": DATA, "run": {"steps": 4}}
    quiet = trainer(configured(tmp_path / "quiet", **tables))
    finished(quiet)
    watched_config = configured(tmp_path / "watched", **tables, validation=QUICK)
    watched = trainer(watched_config, watchers=watchers(watched_config.validation))
    finished(watched)
    assert same(quiet.weights(), watched.weights())


def test_without_held_out_pairs_it_says_so(tmp_path: Path) -> None:
    class Everything(RandomSamples):
        @property
        def held_out(self) -> RandomSamples:
            return replace(self, count=0)

    config = configured(tmp_path / "run", data=DATA, validation=QUICK, run={"steps": 2})
    (found,) = of_kind(finished(trainer(config, Everything(), watchers=[Validation()])), Validated)
    assert not found.held_out


@pytest.mark.parametrize(
    ("settings", "measure"),
    [
        ({"hints": "canny"}, "edge_f1"),
        ({"hints": "canny", "randomise": {"low_threshold": (50, 150)}}, "edge_f1"),
        ({"condition": "canny"}, "edge_f1"),
        ({"condition": "circle outlines"}, "ssim"),
        ({}, "ssim"),
        ({"condition": "depth"}, "ssim"),
    ],
)
def test_the_measure_is_that_of_the_condition(
    settings: dict[str, Any], measure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTROLNET_KIT_WEIGHTS", str(tmp_path))
    settings = {"hints": "given", **settings}
    pictures = np.zeros((1, 64, 64, 3), np.uint8)
    pictures[:, 16:48, 16:48] = 255
    hints = to_pixels(canny(to_images(pictures), CannySettings()))
    found = ruler(DataConfig(**settings), seed=0)
    without_reason = settings.get("condition", settings["hints"]) not in ("given", "depth")
    assert (found(pictures, hints, pictures, ["a"]).name, not found.reason) == (measure, without_reason)
    assert found(pictures, hints, pictures, ["a"]).value == pytest.approx(1)
    assert found(np.zeros_like(pictures), hints, pictures, ["a"]).value < 0.8


@pytest.mark.parametrize("made_by", ["the run", "annotate"])
def test_hints_are_made_again_with_the_settings_that_were_drawn_for_them(tmp_path: Path, made_by: str) -> None:
    keys = [f"{number}" for number in range(4)]
    pictures = np.stack([picture(number) for number in range(4)])
    ranges = {"low_threshold": (5.0, 250.0)}
    if made_by == "annotate":
        for key, one in zip(keys, pictures, strict=True):
            save(tmp_path / "photos" / f"{key}.png", one)
        words = ["--preprocessor", "canny", "--set", "low_threshold=[5,250]", "high_threshold=255", "--seed", "7"]
        assert annotate([str(tmp_path / "photos"), str(tmp_path / "edges"), *words, "--workers", "1"]) == 0
        config, seed = recorded(DataConfig(path=str(tmp_path / "edges"))), 1
        files = [tmp_path / "edges" / "hints" / f"{key}.png" for key in keys]
        hints = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    else:
        config, seed = DataConfig(hints="canny", preprocessor_params={"high_threshold": 255}, randomise=ranges), 3
        maker = maker_of("canny", config.preprocessor_params, ranges, seed=3)
        hints = np.stack(maker(list(pictures), keys))
    found = ruler(config, seed=seed)
    assert found(pictures, hints, pictures, keys).value == pytest.approx(1)
    assert found(pictures, hints, pictures, keys[::-1]).value < 1


def test_pixels_survive_the_way_to_images_and_back() -> None:
    pictures = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(-1, -1, -1, 3).contiguous().numpy()
    assert np.array_equal(to_pixels(to_images(pictures)), pictures)
