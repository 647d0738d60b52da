"""The objective's parts, against their formulas."""

import torch
from controlnet_kit.cn_core.diffusion import NoiseSchedule
from controlnet_kit.training.objective import losses, min_snr_weight, target

SCHEDULE = NoiseSchedule()


def test_min_snr_weights() -> None:
    alpha_bar = SCHEDULE.alpha_bar
    snr = alpha_bar / (1 - alpha_bar)
    torch.testing.assert_close(min_snr_weight(alpha_bar, 5.0), torch.minimum(snr, torch.tensor(5.0)) / snr)
    torch.testing.assert_close(min_snr_weight(alpha_bar, 5.0, "v"), torch.minimum(snr, torch.tensor(5.0)) / (snr + 1))
    assert min_snr_weight(torch.tensor([0.0]), 5.0).tolist() == [1.0]


def test_targets() -> None:
    latents, noise, t = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3), torch.tensor([10, 900])
    assert target("eps", SCHEDULE, latents, noise, t) is noise
    v = target("v", SCHEDULE, latents, noise, t)
    signal, level = SCHEDULE.signal_and_noise(t)
    torch.testing.assert_close(signal * v + level * SCHEDULE.add_noise(latents, noise, t), noise, atol=1e-5, rtol=1e-5)


def test_losses_are_of_rows() -> None:
    assert losses(torch.tensor([[1.0, 1.0], [3.0, 3.0]]), torch.zeros(2, 2)).tolist() == [1, 9]
