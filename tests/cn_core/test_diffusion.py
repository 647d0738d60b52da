"""The diffusion process against diffusers' schedulers set up as Stable Diffusion's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.diffusion import NoiseSchedule, ddim, guided

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD_DDIM = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading"}


def scheduler(kind: str, **settings: str) -> Any:
    """diffusers' DDPM or DDIM scheduler with Stable Diffusion's settings."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    build: Any = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}[kind]
    return build(**SD, **(SD_DDIM if kind == "ddim" else {}), **settings)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-5, absolute or relative."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def noisy(seed: int, *shape: int) -> torch.Tensor:
    """Seeded Gaussian noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_schedule_is_that_of_stable_diffusion():
    alpha_bar = NoiseSchedule().alpha_bar
    assert alpha_bar.dtype == torch.float32
    assert_close(alpha_bar, scheduler("ddpm").alphas_cumprod)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    np.testing.assert_allclose(alpha_bar, np.cumprod(1 - betas).astype(np.float32), rtol=2e-7)


def test_the_schedule_is_computed_once_and_kept_on_its_device():
    schedule = NoiseSchedule(device=torch.device("meta"))
    assert schedule.alpha_bar.is_meta and schedule.alpha_bar is schedule.alpha_bar


@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_other_schedules_are_those_of_diffusers(kind: Any, zero_snr: bool):
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    ends: Any = {"beta_start": 0.0002, "beta_end": 0.02}
    theirs: Any = DDPMScheduler(**ends, beta_schedule=kind, rescale_betas_zero_snr=zero_snr)
    found = NoiseSchedule(**ends, kind=kind, zero_snr=zero_snr).alpha_bar
    assert_close(found, theirs.alphas_cumprod)
    assert (found[-1] == 0) == zero_snr


def test_noise_and_velocity_are_those_of_diffusers():
    schedule, theirs = NoiseSchedule(), scheduler("ddpm")
    x_0, eps, timesteps = noisy(0, 4, 4, 5, 7), noisy(1, 4, 4, 5, 7), torch.tensor([0, 1, 500, 999])
    assert_close(schedule.add_noise(x_0, eps, timesteps), theirs.add_noise(x_0, eps, timesteps))
    assert_close(schedule.v_target(x_0, eps, timesteps), theirs.get_velocity(x_0, eps, timesteps))


def test_half_precision_stays_half_precision():
    x_0, timesteps = noisy(0, 2, 4, 4, 4).bfloat16(), torch.tensor([3, 900])
    for function in (NoiseSchedule().add_noise, NoiseSchedule().v_target):
        assert function(x_0, x_0, timesteps).dtype == torch.bfloat16


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("steps", [1, 7, 20, 50, 999])
def test_ddim_is_that_of_diffusers(steps, prediction):
    """Every step, with a network that depends on x and t; also the timesteps that it is asked for."""
    theirs = scheduler("ddim", prediction_type={"eps": "epsilon", "v": "v_prediction"}[prediction])
    theirs.set_timesteps(steps)
    asked = []

    def denoise(x, timesteps):
        asked.append(timesteps)
        return torch.sin(x) * (1 + timesteps[:, None, None, None] / 1000)

    x = expected = noisy(2, 2, 4, 4, 3)
    results = list(ddim(denoise, x, steps=steps, prediction=prediction))
    assert len(results) == steps
    assert torch.equal(torch.stack(asked), theirs.timesteps[:, None].expand(-1, 2))
    for found, t in zip(results, theirs.timesteps, strict=True):
        expected = theirs.step(denoise(expected, t.expand(2)), t, expected).prev_sample
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_ddim_with_the_true_noise_finds_the_picture():
    schedule, x_0, eps = NoiseSchedule(), noisy(3, 1, 4, 6, 6), noisy(4, 1, 4, 6, 6)
    start = schedule.add_noise(x_0, eps, torch.tensor([951]))
    *_, found = ddim(lambda *_: eps, start, steps=20)
    torch.testing.assert_close(found, schedule.add_noise(x_0, eps, torch.tensor([0])), rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [0, -3, 1000])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"1 to 999 sampling steps, got {steps}"):
        next(ddim(lambda x, _: x, noisy(0, 1, 4, 4, 4), steps=steps))


def test_guidance():
    conditional, unconditional = noisy(5, 1, 4, 4, 4), noisy(6, 1, 4, 4, 4)
    torch.testing.assert_close(guided(conditional, unconditional, 1.0), conditional)
    assert torch.equal(guided(conditional, unconditional, 0.0), unconditional)
    expected = conditional + 6.5 * (conditional - unconditional)
    torch.testing.assert_close(guided(conditional, unconditional, 7.5), expected)
