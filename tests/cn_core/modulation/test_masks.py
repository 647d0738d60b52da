"""Effect masks at the size of every kind of residual."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.modulation.masks import extent, feather, fit, from_hint, prepare
from torch import Tensor


def half(height: int = 520, width: int = 504, masks: int = 1) -> Tensor:
    """1 in the left half."""
    mask = torch.zeros(masks, 1, height, width)
    mask[..., : width // 2] = 1
    return mask


def shuffled(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (1, 1, 5, 7)])
def test_prepare_takes_the_hosts_shapes(shape):
    mask = shuffled(*shape)
    assert torch.equal(prepare(mask), mask.reshape(1, 1, 5, 7))
    assert prepare(mask.half()).dtype == torch.float32


def test_prepare_keeps_batches_and_cuts_overshoot():
    mask = shuffled(3, 5, 7)
    assert torch.equal(prepare(mask), mask[:, None])
    assert torch.equal(prepare(mask * 1.2 - 0.1), (mask * 1.2 - 0.1).clamp(0, 1)[:, None])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.full((4, 4), float("nan")), "NaN"),
        (torch.full((4, 4), float("inf")), "infinite"),
        (255 * torch.ones(1, 4, 4), "0 to 255|255 to 255; scale"),
        (torch.ones(1, 4, 4, 3), r"shape \(1, 4, 4, 3\)"),
        (torch.ones(4), r"shape \(4,\)"),
        (torch.ones(0, 4, 4), r"shape \(0, 4, 4\)"),
    ],
)
def test_prepare_refuses(mask, message):
    with pytest.raises(ControlNetKitError, match=message):
        prepare(mask)


def test_extent():
    assert extent(torch.ones(2, 1, 4, 4)) == "everywhere"
    assert extent(torch.zeros(2, 1, 4, 4)) == "nowhere"
    assert extent(half()) == extent(torch.full((1, 1, 4, 4), 0.5)) == extent(torch.ones(1, 1, 4, 4) - 1e-6) == "partly"


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("pixels", [(520, 504), (333, 1024), (7, 5), (65, 63)])
def test_all_ones_and_all_zeros_stay_so_exactly(value, pixels):
    mask = torch.full((1, 1, *pixels), value)
    for size in ((65, 63), (33, 32), (17, 16), (9, 8), (1, 1)):
        assert (fit(mask, torch.zeros(2, 3, *size), (65, 63)) == value).all()
    assert (fit(mask, torch.zeros(2, 1056, 3), (65, 63)) == value).all()
    assert (feather(mask, 2.5) == value).all() and (feather(mask, 200) == value).all()


@pytest.mark.parametrize("size", [(65, 63), (33, 32), (17, 16), (9, 8)])
def test_a_half_mask_over_pictures_is_one_and_zero_but_for_the_column_at_the_border(size):
    factor = fit(half(masks=2), torch.zeros(2, 3, *size), (65, 63))
    assert factor.shape == (2, 1, *size)
    middle = size[1] // 2
    assert (factor[..., : middle - 1] == 1).all() and (factor[..., middle + 1 :] == 0).all()


@pytest.mark.parametrize(("latent", "tokens"), [((65, 63), 1056), ((136, 181), 6188), ((8, 8), 16)])
def test_a_half_mask_over_tokens_is_one_over_the_left_half_of_the_grid(latent, tokens):
    factor = fit(half(8 * latent[0], 8 * latent[1]), torch.zeros(2, tokens, 3), latent)
    assert factor.shape == (1, tokens, 1)
    columns = -(-latent[1] // 2)
    grid = factor.view(-1, columns)
    assert (grid[:, : columns // 2 - 1] == 1).all() and (grid[:, columns // 2 + 1 :] == 0).all()
    assert factor.mean() == pytest.approx(0.5, abs=0.02)


def test_the_frames_of_a_video_share_the_mask():
    one = fit(shuffled(1, 1, 65, 63), torch.zeros(1, 1056, 3), (65, 63))
    assert torch.equal(fit(shuffled(1, 1, 65, 63), torch.zeros(1, 3 * 1056, 3), (65, 63)), torch.cat([one] * 3, dim=1))


def test_a_mask_at_the_residuals_size_is_taken_as_it_is():
    mask = shuffled(2, 1, 17, 15)
    assert torch.equal(fit(mask, torch.zeros(2, 3, 17, 15), (17, 15)), mask)


def test_shrinking_takes_the_mean():
    mask = shuffled(1, 1, 64, 64)
    assert fit(mask, torch.zeros(1, 3, 8, 8), (8, 8)).mean() == pytest.approx(float(mask.mean()), abs=0.01)


def test_factors_come_in_the_residuals_precision():
    assert fit(half(), torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16), (8, 8)).dtype == torch.bfloat16
    assert fit(half().half(), torch.zeros(1, 16, 3), (8, 8)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(2, 1024, 3), (2, 1057, 3), (2, 3)])
def test_other_numbers_of_tokens_are_refused_with_both_numbers(shape):
    with pytest.raises(ControlNetKitError, match=rf"65 x 63 has 1056 tokens, and {shape[1]} is no multiple"):
        fit(half(), torch.zeros(shape), (65, 63))


def test_no_feather_is_the_same_value():
    mask = half()
    assert feather(mask, 0) is mask


def test_a_feather_is_soft_as_far_as_it_reaches_and_keeps_the_mean():
    mask = half(64, 64)
    soft = feather(mask, 6)
    assert torch.equal(soft[..., :26], mask[..., :26]) and torch.equal(soft[..., 38:], mask[..., 38:])
    border = soft[0, 0, 0, 26:38]
    assert ((border > 0) & (border < 1)).all() and (border.diff() < 0).all()
    assert soft.mean() == pytest.approx(0.5, abs=1e-4)
    torch.testing.assert_close(feather(mask.mT.contiguous(), 6), soft.mT, atol=2e-5, rtol=0)


@pytest.mark.parametrize("radius_px", [-1.0, float("nan"), float("inf")])
def test_feathers_are_checked(radius_px):
    with pytest.raises(ControlNetKitError, match="feather"):
        feather(half(), radius_px)


def test_a_mask_from_a_hint_covers_what_it_says_and_a_little_more():
    hint = torch.zeros(2, 3, 40, 50)
    hint[0, 1, 20, 10] = 0.5
    hint[0, :, 5, 5] = 0.04  # too dark
    mask = from_hint(hint, reach_px=3, feather_px=0)
    assert mask.shape == (2, 1, 40, 50)
    assert (mask[0, 0, 17:24, 7:14] == 1).all() and mask[0].sum() == 49 and not mask[1].any()
    soft = from_hint(hint, reach_px=3, feather_px=2)
    assert soft[0, 0, 20, 10] == 1 and 0 < soft[0, 0, 20, 14] < 1
    assert extent(from_hint(hint[1:])) == "nowhere"
    assert torch.equal(from_hint(hint, reach_px=0, feather_px=0).nonzero(), torch.tensor([[0, 0, 20, 10]]))
    with pytest.raises(ControlNetKitError, match="reach"):
        from_hint(hint, reach_px=-1)
