"""The objective's parts, against their formulas."""

import torch
from controlnet_kit.cn_core.diffusion import NoiseSchedule
from controlnet_kit.training.step import drop_prompts, min_snr_weight, weighted_mse


def test_dropped_prompts_are_the_empty_one_at_the_rate_asked_for() -> None:
    context, empty = torch.ones(4000, 2, 3), torch.zeros(1, 2, 3)
    dropped = drop_prompts(context, empty, 0.3, torch.Generator().manual_seed(0))
    rows = dropped.flatten(1)
    assert ((rows == 0).all(1) | (rows == 1).all(1)).all()
    assert abs((rows == 0).all(1).float().mean().item() - 0.3) < 0.03
    generator = torch.Generator()
    torch.testing.assert_close(drop_prompts(context, empty, 0.0, generator), context)
    torch.testing.assert_close(drop_prompts(context, empty, 1.0, generator), empty.expand_as(context))


def test_min_snr_weight_is_one_where_snr_is_small_and_gamma_over_snr_where_it_is_large() -> None:
    alpha_bar = NoiseSchedule().alpha_bar
    weight = min_snr_weight(alpha_bar, 5.0)
    assert (weight[-100:] == 1).all()
    torch.testing.assert_close(weight[0], 5.0 * (1 - alpha_bar[0]) / alpha_bar[0])


def test_weighted_mse_weights_rows() -> None:
    prediction, target = torch.tensor([[1.0, 1.0], [3.0, 3.0]]), torch.zeros(2, 2)
    assert weighted_mse(prediction, target) == 5
    assert weighted_mse(prediction, target, torch.tensor([2.0, 0.0])) == 1
