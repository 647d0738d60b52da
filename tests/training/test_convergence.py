"""The rule for the loss gap, on made-up curves and on a short run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from controlnet_kit.training.events import Converged, Probed, Saved, Validated
from controlnet_kit.training.watch.convergence import Gap, converged_at, message, progress
from controlnet_kit.training.watch.probe import Probe
from controlnet_kit.training.watch.validate import Validation
from training_runs import configured, finished, of_kind, trainer

ERROR = 0.002


def curve(shape: Callable[[int], float], noise: float, seed: int, count: int = 60) -> list[Gap]:
    """A measurement every 100 steps of a gap of this shape."""
    rng = np.random.default_rng(seed)
    levels = [shape(100 * (index + 1)) + noise * rng.normal() for index in range(count)]
    return [
        Gap(number=100 * (index + 1), other_hint=level, no_control=level / 3, error=ERROR, loss=0.15)
        for index, level in enumerate(levels)
    ]


def announced(gaps: list[Gap]) -> tuple[int, int] | None:
    """(the step at which it is said, the step that is said)."""
    for end in range(1, len(gaps) + 1):
        found = converged_at(gaps[:end])
        if found is not None:
            return gaps[end - 1].number, found
    return None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("noise", [0.0, 0.001, 0.003])
def test_a_sudden_rise_is_found_where_it_is(noise: float, seed: int) -> None:
    said = announced(curve(lambda step: 0.03 / (1 + math.exp(-(step - 4150) / 60)), noise, seed))
    assert said is not None and 4100 <= said[1] <= 4300 and said[0] - said[1] <= 600


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "shape",
    [lambda _: 0.0, lambda step: 0.03 if step == 3000 else 0.0, lambda step: -0.02 if step > 3000 else 0.0],
    ids=["flat", "one outlier", "the right hint is worse"],
)
def test_noise_and_outliers_are_no_convergence(shape: Callable[[int], float], seed: int) -> None:
    assert announced(curve(shape, 0.002, seed)) is None


def test_a_trunk_that_follows_at_once_converged_at_the_first_measurement() -> None:
    assert announced(curve(lambda _: 0.04, 0.001, 0)) == (300, 100)


def test_control_that_does_harm_is_no_convergence() -> None:
    gaps = [Gap(number=n, other_hint=0.03, no_control=-0.01, error=ERROR, loss=0.1) for n in (1, 2, 3, 4)]
    assert converged_at(gaps) is None


def test_a_rise_that_goes_on_is_waited_for() -> None:
    levels = [0.0, 0.01, 0.03, 0.08, 0.2, 0.21, 0.2]
    gaps = [
        Gap(number=number, other_hint=level, no_control=level, error=0.001, loss=0.4)
        for number, level in enumerate(levels, 1)
    ]
    assert announced(gaps) == (7, 5)


def test_progress_is_between_floor_and_ceiling_and_silent_about_pictures() -> None:
    assert progress("edge_f1", {"edge_f1": 0.5, "floor": 0.2, "ceiling": 0.8}) == pytest.approx(0.5)
    assert progress("edge_f1", {"ssim": 0.9, "edge_f1": 0.5, "floor": 0.2, "ceiling": 0.8}) == pytest.approx(0.5)
    assert progress("depth_aligned_rmse", {"depth_aligned_rmse": 0.1, "floor": 0.3, "ceiling": 0.1}) == pytest.approx(1)
    assert progress("ssim", {"ssim": 0.5, "floor": 0.2, "ceiling": 1.0}) is None and progress("", {}) is None


def test_what_is_announced_names_the_measure() -> None:
    gap = Gap(number=300, other_hint=0.03, no_control=0.01, error=ERROR, loss=0.1)
    scores = {"ssim": 0.9, "edge_f1": 0.5, "floor": 0.2, "ceiling": 0.8}
    assert "and edge_f1 is 0.500 (floor 0.200, ceiling 0.800)" in message(100, gap, "edge_f1", scores)
    assert message(100, gap, "", {}) == "Converged at step 100: with another picture's hint the loss is 30% larger."


def test_a_probe_is_zero_at_first_repeats_itself_and_is_remembered(tmp_path: Path) -> None:
    config = configured(
        tmp_path / "run",
        validation={"every": 0, "probe_every": 1},
        optimizer={"learning_rate": 0.0},
        run={"steps": 3, "save_every": 3},
    )
    probe = Probe()
    probed = of_kind(finished(trainer(config, watchers=[probe])), Probed)
    assert [one.number for one in probed] == [1, 2, 3]
    assert all(one.values == {**probed[0].values, "no_control": 0, "other_hint": 0, "error": 0} for one in probed)
    assert probed[0].preview.shape == (4, 64, 64, 3) and probed[0].preview.dtype == np.uint8
    again = Probe()
    again.restore(probe.state())
    assert again.gaps == probe.gaps and len(again.gaps) == 3


def test_a_run_that_learns_a_hint_says_so_once_and_keeps_a_snapshot(tmp_path: Path) -> None:
    config = configured(
        tmp_path / "run",
        validation={"every": 1000, "probe_every": 10, "steps": 2, "count": 2},
        objective={"prompt_dropping": 1.0},
        run={"steps": 80, "log_every": 50},
    )
    validation = Validation()
    events = finished(trainer(config, watchers=[validation, Probe(validation)]))
    (said,) = of_kind(events, Converged)
    assert 10 <= said.since <= said.number - 20 and f"step {said.since}" in said.message
    snapshot = next(event.path for event in of_kind(events, Saved) if "converged" in event.path.name)
    assert snapshot.is_file()
    assert [event.number for event in of_kind(events, Validated)] == [said.number, 80]
