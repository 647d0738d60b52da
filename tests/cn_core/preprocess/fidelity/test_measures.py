"""Depth, normals, areas, pictures: values by hand, published formulas, scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.fidelity import depth, normals, pictures, regions
from controlnet_kit.cn_core.preprocess.palettes import colours
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def ramp() -> np.ndarray:
    """32 48 float32 from 0.1 to 0.9."""
    return np.linspace(0.1, 0.9, 32 * 48, dtype=np.float32).reshape(32, 48)


def test_scale_invariant_error_is_the_formula_of_the_paper():
    rng = np.random.default_rng(0)
    found, wanted = rng.uniform(0.1, 1, (2, 20, 30)).astype(np.float32)
    d = np.log(found) - np.log(wanted)
    by_pairs = ((d.ravel()[:, None] - d.ravel()[None]) ** 2).sum() / (2 * d.size**2)  # Eq. 2: differences of all pairs
    assert depth.scale_invariant_log_error(found, wanted) ** 2 == pytest.approx(by_pairs, rel=1e-4)


def test_scale_does_not_matter_and_shift_only_without_alignment():
    assert depth.scale_invariant_log_error(ramp() / 3, ramp()) == pytest.approx(0, abs=1e-6)
    assert depth.scale_invariant_log_error(ramp() / 3 + 0.1, ramp()) > 0.05
    assert depth.aligned_rmse(ramp() / 3 + 0.1, ramp()) == pytest.approx(0, abs=1e-6)


def test_alignment_is_least_squares():
    rng = np.random.default_rng(1)
    wanted = ramp()
    found = (0.5 * wanted + 0.2 + 0.05 * rng.standard_normal(wanted.shape)).astype(np.float32)
    design = np.stack([found.ravel(), np.ones(found.size)], axis=1)
    solution = np.linalg.lstsq(design, wanted.ravel(), rcond=None)[0]
    np.testing.assert_allclose(depth.aligned(found, wanted).ravel(), design @ solution, atol=1e-5)


def test_near_and_far_exchanged_is_as_wrong_as_no_depth_at_all():
    assert depth.aligned_rmse(1 - ramp(), ramp()) == pytest.approx(float(ramp().std()), rel=1e-4)
    assert depth.aligned_rmse(np.full_like(ramp(), 0.5), ramp()) == pytest.approx(float(ramp().std()), rel=1e-4)


def facing(degrees: float) -> np.ndarray:
    """8 8 3: a wall turned so far to the right."""
    normal = np.array([math.sin(math.radians(degrees)), 0, math.cos(math.radians(degrees))], np.float32)
    return np.broadcast_to((normal + 1) / 2, (8, 8, 3)).copy()


@pytest.mark.parametrize(("turn", "shares"), [(0, (1, 1, 1)), (20, (0, 1, 1)), (25, (0, 0, 1)), (90, (0, 0, 0))])
def test_normals_turned_by_an_angle_are_off_by_it(turn, shares):
    errors = normals.normal_errors(facing(turn), facing(0))
    assert errors.mean == pytest.approx(turn, abs=1e-3) and errors.median == pytest.approx(turn, abs=1e-3)
    assert errors.shares == shares


def test_half_of_the_wall_and_no_background_counts():
    found, wanted = facing(0), facing(0)
    found[:, 4:], wanted[:2] = facing(40)[:, 4:], 0
    errors = normals.normal_errors(found, wanted)
    assert errors.mean == pytest.approx(20, abs=1e-3)
    assert errors.shares == (0.5, 0.5, 0.5)


def test_iou_by_hand():
    one, other = np.zeros((2, 4, 6), np.bool_)
    one[:, :4], other[:, 2:] = True, True
    assert regions.iou(one, other) == pytest.approx(8 / 24)
    assert regions.iou(one, one) == 1
    assert regions.iou(one & False, other & False) == 1


def test_mean_iou_over_classes_by_hand():
    palette = colours("ADE20K")
    wanted = np.zeros((4, 6, 3), np.float32) + palette[2] / np.float32(255)  # sky
    wanted[2:] = palette[9] / np.float32(255)  # grass
    found = wanted.copy()
    found[1] = palette[9] / np.float32(255)
    classes = [regions.class_map(one, palette) for one in (found, wanted)]
    assert set(np.unique(classes[1])) == {2, 9}
    assert regions.mean_iou(*classes) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert regions.mean_iou(classes[1], classes[1]) == 1


@pytest.mark.parametrize("size", [(72, 96), (11, 30)])
def test_ssim_and_psnr_are_scikit_images(photos, size):
    wanted = photos[..., : size[0], : size[1]]
    found = (wanted + 0.08 * torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    for index in range(len(wanted)):
        one, other = (pixels[index].movedim(0, -1).numpy().astype(np.float64) for pixels in (wanted, found))
        theirs = structural_similarity(
            *(one, other), data_range=1, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False, sigma=1.5
        )
        assert float(pictures.ssim(found, wanted)[index]) == pytest.approx(theirs, abs=1e-6)
        peak = peak_signal_noise_ratio(one, other, data_range=1)
        assert float(pictures.psnr(found, wanted)[index]) == pytest.approx(peak, abs=1e-4)


def test_equal_pictures_and_tiny_ones(photos):
    assert pictures.ssim(photos, photos).tolist() == pytest.approx([1, 1])
    assert pictures.psnr(photos, photos).tolist() == [100, 100]
    assert pictures.ssim(photos[..., :1, :2], photos[..., :1, :2]).tolist() == pytest.approx([1, 1])
