"""Halves of a batch side by side: the same run, to rounding, and always the same one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from controlnet_kit.training.lanes import Lanes
from controlnet_kit.training.loop import Trainer
from training_runs import RandomSamples, configured, finished, same, trainer

SGD = {"name": "sgd", "learning_rate": 0.1, "clip": 0.01}


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As on a machine with two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def run(folder: Path, **tables: Any) -> Trainer:
    """A finished run of four steps of five pairs."""
    tables = {"optimizer": SGD, "run": {"steps": 4, "batch": 5}, **tables}
    made = trainer(configured(folder, **tables), RandomSamples())
    finished(made)
    return made


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"objective": {"timesteps": "learned", "min_snr_gamma": 5.0}},
        {"target": {"links": "shallow"}},
        {"hardware": {"checkpointing": "both"}},
        {"target": {"hint_encoder": "vae"}},
    ],
    ids=str,
)
@pytest.mark.usefixtures("two_threads")
def test_halves_are_the_whole(tmp_path: Path, tables: dict[str, Any]) -> None:
    side_by_side, again = (run(tmp_path / name, **tables) for name in ("first", "second"))
    assert side_by_side.lanes is not None and same(side_by_side.weights(), again.weights())
    torch.set_num_threads(1)
    whole = run(tmp_path / "whole", **tables)
    assert whole.lanes is None and not same(whole.weights(), side_by_side.weights())
    for name, value in whole.weights().items():
        torch.testing.assert_close(side_by_side.weights()[name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("two_threads")
def test_networks_that_keep_notes_run_alone(tmp_path: Path) -> None:
    assert trainer(configured(tmp_path / "run", target={"kind": "lllite", "rank": 4})).lanes is None


def test_results_come_in_order() -> None:
    lanes = Lanes(2)
    assert lanes(lambda start, stop: (start, stop, torch.get_num_threads()), 5) == [(0, 2, 1), (2, 5, 1)]
    lanes.close()
