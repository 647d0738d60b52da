"""Masks of people by the real weights in a photograph whose outline was traced by eye."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.learned.person_mask import (
    ENTRIES,
    PersonMaskDetector,
    PersonMaskSettings,
    guided,
)
from skimage import data
from skimage.draw import polygon2mask
from torch import Tensor

(ENTRY,) = ENTRIES
OUTLINE = [
    *((512, 15), (420, 25), (330, 30), (280, 50), (235, 85), (195, 115), (150, 130), (155, 165), (120, 175)),
    *((90, 155), (50, 155), (20, 195), (12, 235), (30, 285), (75, 300), (110, 285), (130, 260), (165, 265)),
    *((170, 295), (210, 305), (240, 330), (310, 350), (350, 360), (370, 310), (430, 280), (512, 275)),
]
"""y, x of the woman in skimage's astronaut, without the helmet in her arm."""
DEFAULT = PersonMaskSettings()


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    """1 3 512 512: a woman to the waist, in a space suit, with a helmet."""
    return torch.from_numpy(data.astronaut()).movedim(-1, 0)[None] / 255


def opened(folder: Path, settings: PersonMaskSettings) -> PersonMaskDetector:
    detector = ENTRY.open([folder], settings)
    assert isinstance(detector, PersonMaskDetector)
    return detector


@pytest.fixture(scope="module")
def detector(weights_folder: Path) -> PersonMaskDetector:
    return opened(weights_folder, DEFAULT)


@pytest.fixture(scope="module")
def selfie(weights_folder: Path) -> PersonMaskDetector:
    return opened(weights_folder, PersonMaskSettings(network="selfie"))


def overlap(mask: Tensor) -> float:
    """Intersection over union with the outline."""
    found, traced = mask[0, 0].numpy() > 0.5, polygon2mask((512, 512), OUTLINE)
    return float((found & traced).sum() / (found | traced).sum())


def test_the_mask_is_her_outline(detector: PersonMaskDetector, astronaut: Tensor):
    mask = detector(astronaut, DEFAULT)
    assert overlap(mask) > 0.85
    assert torch.equal(mask[:, 0], mask[:, 1]) and torch.equal(mask[:, 0], mask[:, 2])
    assert mask[0, 0, :, 420:].mean() < 0.05 < 0.98 < mask[0, 0, 60:160, 200:250].mean()


def test_the_selfie_network_takes_what_she_holds_for_her(selfie: PersonMaskDetector, astronaut: Tensor):
    mask = selfie(astronaut, PersonMaskSettings(network="selfie"))
    assert overlap(mask) > 0.65
    assert mask[0, 0, 420:500, 320:440].mean() > 0.5


def test_two_people(detector: PersonMaskDetector, astronaut: Tensor):
    mask = detector(torch.cat([astronaut, astronaut], dim=-1), DEFAULT)
    assert overlap(mask[..., :512]) > 0.85 and overlap(mask[..., 512:]) > 0.85


def test_a_mirrored_picture_has_a_mirrored_mask(detector: PersonMaskDetector, astronaut: Tensor):
    assert overlap(detector(astronaut.flip(-1), DEFAULT).flip(-1)) > 0.78


@pytest.mark.parametrize("size", [(512, 512), (1, 1), (3, 700)])
def test_nobody_gives_a_black_mask_and_a_line_in_the_log(
    detector: PersonMaskDetector, size: tuple[int, int], caplog: pytest.LogCaptureFixture
):
    mask = detector(torch.zeros(1, 3, *size), DEFAULT)
    assert mask.shape == (1, 3, *size) and not mask.any()
    assert "shows nobody in pictures [0]" in caplog.text


def test_a_cup_is_nobody(detector: PersonMaskDetector):
    assert not detector(torch.from_numpy(data.coffee()).movedim(-1, 0)[None] / 255, DEFAULT).any()


def test_every_setting_counts(detector: PersonMaskDetector, astronaut: Tensor):
    plain = detector(astronaut, DEFAULT)
    assert not torch.equal(detector(astronaut, replace(DEFAULT, sharpen=0)), plain)
    cut = detector(astronaut, replace(DEFAULT, threshold=0.5))
    assert set(cut.unique().tolist()) == {0, 1} and torch.equal(cut > 0, plain >= 0.5)
    assert not detector(astronaut, replace(DEFAULT, min_confidence=1.0)).any()
    small = torch.zeros(1, 3, 700, 700)
    small[..., 300:364, 60:124] = torch.nn.functional.interpolate(astronaut, size=(64, 64), mode="area")
    assert detector(small, DEFAULT).any() and not detector(small, replace(DEFAULT, small=False)).any()


def test_a_batch_is_its_pictures_in_their_own_type(detector: PersonMaskDetector, astronaut: Tensor):
    batch = torch.cat([astronaut.flip(-1), torch.zeros_like(astronaut), astronaut])
    masks = detector(batch, DEFAULT)
    torch.testing.assert_close(masks, torch.cat([detector(one[None], DEFAULT) for one in batch]), rtol=0, atol=0)
    assert masks.min() >= 0 and masks.max() <= 1
    assert detector(astronaut.bfloat16(), DEFAULT).dtype == torch.bfloat16


def test_files_follow_the_network():
    names = [Path(file.file).name for file in ENTRY.files(DEFAULT)]
    assert names == ["pose_detection.tflite", "pose_landmark_heavy.tflite"]
    assert [Path(file.file).name for file in ENTRY.files(PersonMaskSettings(network="selfie"))] == [
        "selfie_segmentation.tflite"
    ]


def test_the_guided_filter_moves_a_mask_to_the_pictures_edge():
    guide = np.zeros((40, 40), np.float32)
    guide[:, 20:] = 1
    blurred = np.clip((np.arange(40, dtype=np.float32)[None] - 14) / 12, 0, 1).repeat(40, axis=0)
    sharp = guided(blurred, guide, 8)
    assert sharp[20, 19] < 0.35 and sharp[20, 20] > 0.65
    assert np.abs(np.diff(sharp[20])).argmax() == 19


def test_the_guided_filter_of_a_flat_picture_blurs():
    mask = np.random.default_rng(0).random((40, 40), np.float32)
    import cv2

    twice = cv2.blur(cv2.blur(mask, (9, 9)), (9, 9))
    np.testing.assert_allclose(guided(mask, np.full((40, 40), 0.5, np.float32), 4), twice, atol=1e-5)
