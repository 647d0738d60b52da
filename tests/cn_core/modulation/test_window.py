"""Windows: which evaluations of a run are controlled. The host's own schedules: tests/nodes."""

from __future__ import annotations

import numpy as np
import pytest
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.modulation.run import Run
from controlnet_kit.cn_core.modulation.window import Window, active, active_steps, is_empty

RUN = Run(
    sigmas=tuple(10.0 - step for step in range(11)),
    percent_to_sigma=lambda percent: 999999999.9 if percent <= 0 else 10 * (1 - percent),
)


@pytest.mark.parametrize(
    ("start", "end", "unit", "steps"),
    [
        (0, 1, "schedule", range(10)),
        (0, 0.3, "schedule", range(4)),  # both ends are inside
        (0.5, 0.5, "schedule", [5]),
        (0.6, 0.4, "schedule", []),
        (0, 0.3, "run", range(3)),
        (0.3, 1, "run", range(3, 10)),
        (0.24, 0.76, "run", range(2, 8)),
        (0.25, 0.75, "run", range(3, 8)),  # halves go up
        (0.5, 0.5, "run", []),
        (2, 5, "step", range(2, 5)),
        (7, 10, "step", range(7, 10)),
        (7, 5000, "step", range(7, 10)),
        (10, 20, "step", []),
        (5, 2, "step", []),
    ],
)
def test_active_steps(start, end, unit, steps):
    window = Window(start=start, end=end, unit=unit)
    assert active_steps(window, RUN) == tuple(steps)
    assert is_empty(window, RUN) is (not steps)


def test_the_default_is_open_everywhere():
    assert all(active(Window(), sigma, RUN) for sigma in (11.0, 10.0, 3.3, 1e-3, 0.0))


def test_percentages_of_the_run_meet_their_steps():
    run = Run(sigmas=tuple(range(100, -1, -1)), percent_to_sigma=RUN.percent_to_sigma)
    for step in range(101):
        assert active_steps(Window(end=step / 100, unit="run"), run) == tuple(range(step))


def test_evaluations_between_two_sigmas_belong_to_the_step_before():
    window = Window(start=2, end=5, unit="step")
    inside = {8.0: True, 7.99: True, 5.01: True, 8.01: False, 5.0: False, 4.99: False}
    assert {sigma: active(window, sigma, RUN) for sigma in inside} == inside
    assert active(window, 8.0 * (1 + 3e-7), RUN)  # a rounding of the sampler


def test_what_lies_outside_the_run_belongs_to_its_ends():
    half = Run(sigmas=RUN.sigmas[:6], percent_to_sigma=RUN.percent_to_sigma)
    assert active(Window(end=0.2, unit="run"), 99.0, half)
    assert active(Window(start=4, end=5, unit="step"), 0.0, half)


def test_the_noise_schedule_is_compared_in_float32():
    sigma = float(np.float32(0.1))  # above 0.1 in double precision
    run = Run(sigmas=(1.0, sigma, 0.0), percent_to_sigma=lambda percent: 0.1 if percent == 0.5 else 0.0)
    assert sigma > 0.1
    assert active(Window(start=0.5, end=1), sigma, run)


@pytest.mark.parametrize(
    ("start", "end", "unit"), [(float("nan"), 1, "run"), (0, -0.1, "schedule"), (0, 20, "run"), (0, 1, "percent")]
)
def test_windows_check_themselves(start, end, unit):
    with pytest.raises(ControlNetKitError, match=r"window"):
        Window(start=start, end=end, unit=unit)
