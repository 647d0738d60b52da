"""Boxes and masks hold what they are for, and nothing far from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.pose.keypoints import Person, PoseError, everything
from controlnet_kit.cn_core.preprocess.pose.regions import REGIONS, RegionSettings, boxes, masks
from poses import frame, person

TIGHT = RegionSettings(padding=0.0)


def test_a_box_holds_all_points_and_no_more():
    (box,) = boxes(frame(person()), TIGHT)
    places = everything(person())[:, :2]
    assert (box["x"], box["y"]) == tuple(np.floor(places.min(axis=0)))
    assert (box["x"] + box["width"] - 1, box["y"] + box["height"] - 1) == tuple(np.ceil(places.max(axis=0)))


def test_padding_is_a_share_of_the_longer_side():
    tight, wide = boxes(frame(person()), TIGHT)[0], boxes(frame(person()), RegionSettings(padding=0.1))[0]
    assert tight["x"] - wide["x"] == pytest.approx(0.1 * tight["height"], abs=1)


def test_boxes_of_parts():
    counts = {region: len(boxes(frame(person(), person(5)), RegionSettings(region=region))) for region in REGIONS}
    assert counts == {"person": 2, "face": 2, "hands": 4, "left hand": 2, "right hand": 2}
    (face,) = boxes(frame(person(whole=False)), RegionSettings(region="face"))
    assert face["y"] < 80 < face["y"] + face["height"]


def test_boxes_are_cut_off_at_the_canvas():
    (box,) = boxes(frame(person(-200)), RegionSettings())
    assert box["x"] == 0
    assert boxes(frame(person(-900)), RegionSettings()) == boxes(frame(Person()), RegionSettings()) == []


@pytest.mark.parametrize("region", REGIONS)
def test_masks_hold_their_points_within_the_padded_box(region):
    settings = RegionSettings(region=region, padding=0.2)
    mask = masks((frame(person()),), settings)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    allowed = torch.zeros_like(mask)
    for box in boxes(frame(person()), settings):
        allowed[0, box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]] = 1
    assert (mask * (1 - allowed)).sum() == 0
    parts = {"person": everything(person())[:18], "face": person().face, "right hand": person().right_hand}
    for x, y, _ in parts.get(region, person().left_hand):
        assert mask[0, round(float(y)), round(float(x))] == 1


def test_a_mask_for_each_frame():
    batch = masks((frame(person()), frame()), RegionSettings())
    assert batch.shape == (2, 480, 400)
    assert batch[0].any()
    assert not batch[1].any()


def test_too_large():
    with pytest.raises(PoseError, match="16384"):
        masks((frame(width=16384, height=16384),), RegionSettings())
