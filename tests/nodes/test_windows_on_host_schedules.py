"""Windows and schedules on the host's own sigmas: which of 20 steps are controlled."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import comfy.model_sampling
import comfy.samplers
import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.modulation.run import Run, step_of
from controlnet_kit.cn_core.modulation.schedule import parse, resolve, strength_at
from controlnet_kit.cn_core.modulation.window import Window, active, active_steps
from random_models import SHAPES, host_model

STEPS = 20
ENDS = (0.2, 0.3, 0.5, 0.8)
"""Of windows that begin at 0."""
STABLE_DIFFUSION = {
    ("normal", 1.0): (4, 6, 10, 16),
    ("simple", 1.0): (4, 6, 10, 16),
    ("ddim_uniform", 1.0): (4, 6, 10, 16),
    ("karras", 1.0): (5, 7, 9, 12),
    ("exponential", 1.0): (4, 5, 7, 10),
    ("beta", 1.0): (6, 8, 11, 15),
    ("kl_optimal", 1.0): (2, 3, 7, 13),
    ("linear_quadratic", 1.0): (18, 19, 20, 20),
    ("normal", 0.4): (0, 0, 0, 10),
}
FLUX = {
    ("simple", 1.0): (5, 7, 11, 17),
    ("normal", 1.0): (4, 6, 10, 16),
    ("beta", 1.0): (6, 8, 11, 15),
}


@pytest.fixture(scope="module")
def stable_diffusion() -> Any:
    return host_model(SHAPES["tiny"]).get_model_object("model_sampling")


@pytest.fixture(scope="module")
def flux() -> Any:
    sampling = comfy.model_sampling.ModelSamplingFlux()
    sampling.set_parameters(shift=1.15)
    return sampling


def host_run(sampling: Any, scheduler: str, denoise: float = 1.0) -> Run:
    """The sigmas of the host's KSampler."""
    every = comfy.samplers.calculate_sigmas(sampling, scheduler, int(STEPS / denoise))
    return Run(sigmas=tuple(every[-(STEPS + 1) :].tolist()), percent_to_sigma=sampling.percent_to_sigma)


def host_is_active(run: Run, start: float, end: float, sigma: float) -> bool:
    """The comparison that the host makes with the first element of its sigmas."""
    t, first, last = torch.tensor([sigma]), run.percent_to_sigma(start), run.percent_to_sigma(end)
    return not (t[0] > first or t[0] < last)


@pytest.mark.parametrize(("schedule", "counts"), STABLE_DIFFUSION.items(), ids=str)
def test_steps_of_stable_diffusion(stable_diffusion, schedule, counts):
    run = host_run(stable_diffusion, *schedule)
    found = [active_steps(Window(end=end), run) for end in ENDS]
    assert found == [tuple(range(count)) for count in counts]


@pytest.mark.parametrize(("schedule", "counts"), FLUX.items(), ids=str)
def test_steps_of_flux(flux, schedule, counts):
    run = host_run(flux, *schedule)
    assert [len(active_steps(Window(end=end), run)) for end in ENDS] == list(counts)


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
@pytest.mark.parametrize("denoise", [1.0, 0.4])
def test_percent_of_the_schedule_is_decided_as_in_the_host(stable_diffusion, flux, scheduler, denoise):
    for sampling in (stable_diffusion, flux):
        run = host_run(sampling, scheduler, denoise)
        between = [float(np.float32((a * b) ** 0.5)) for a, b in pairwise(run.sigmas)]
        for place in np.linspace(0, 1, 21).tolist():
            for window in (Window(end=place), Window(start=place)):
                for sigma in (*run.sigmas, *between):
                    assert active(window, sigma, run) is host_is_active(run, window.start, window.end, sigma)


@pytest.mark.parametrize("schedule", [*STABLE_DIFFUSION, ("karras", 0.4), ("linear_quadratic", 0.4)], ids=str)
def test_percent_of_the_run_is_the_same_share_of_every_schedule(stable_diffusion, flux, schedule):
    for sampling in (stable_diffusion, flux):
        run = host_run(sampling, *schedule)
        assert active_steps(Window(end=0.3, unit="run"), run) == tuple(range(6))
        assert active_steps(Window(start=12, end=20, unit="step"), run) == tuple(range(12, 20))


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
def test_a_schedule_in_three_units(stable_diffusion, scheduler):
    run = host_run(stable_diffusion, scheduler)
    knots = resolve(parse("1.0@0, 0.5@30%, 0@step 12"), run)
    found = [strength_at(knots, step_of(sigma, run.sigmas), "linear") for sigma in run.sigmas]
    assert found == pytest.approx([*np.linspace(1, 0.5, 7), *np.linspace(0.5, 0, 7)[1:], *[0] * 8])
    assert (found[0], found[6], found[12]) == (1.0, 0.5, 0.0)
