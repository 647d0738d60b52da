"""SAM: our search for segments against the library's, and the painting with a network whose segments are known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.preprocess.learned import sam
from controlnet_kit.cn_core.preprocess.learned.networks import NetworkDetector
from controlnet_kit.cn_core.preprocess.learned.sam import SamSettings
from PIL import Image
from small_networks import livelier, small_sam
from torch import Tensor, nn
from torchvision.ops import batched_nms
from transformers import SamImageProcessor, pipeline
from transformers.models.sam import image_processing_sam as library

SIDE = 128


class ByColour(nn.Module):
    """In place of SAM: at each point the area of its colour, surely; the whole picture and nothing, hardly."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.config = SimpleNamespace(vision_config=SimpleNamespace(image_size=SIDE))

    def get_image_embeddings(self, pixels: Tensor) -> Tensor:
        return pixels

    def forward(self, image_embeddings: Tensor, input_points: Tensor) -> Any:
        x, y = input_points[0, :, 0].long().unbind(dim=1)
        colours = image_embeddings[0, :, y, x].T[:, :, None, None]  # P 3 1 1
        near = (image_embeddings - colours).abs().amax(dim=1) < 0.2
        masks = nn.functional.avg_pool2d(near.float(), 4) * 20 - 10
        masks = torch.stack([masks, masks.clamp(min=10), masks.clamp(max=-10)], dim=1)
        return SimpleNamespace(pred_masks=masks[None], iou_scores=torch.tensor([0.95, 0.5, 0.5]).expand(1, len(x), 3))


def painted(images: Tensor, **values: Any) -> Tensor:
    detector = NetworkDetector(network=ByColour(), draw=sam.painted)
    with torch.inference_mode():
        return detector(images, replace(SamSettings(points=16, stability=0.5), **values))


def areas(hint: Tensor) -> dict[tuple[float, ...], int]:
    """3 H W -> how many pixels there are of each colour; black is none."""
    colours, counts = hint.flatten(1).T.unique(dim=0, return_counts=True)
    return {tuple(one): count for one, count in zip(colours.tolist(), counts.tolist(), strict=True) if any(one)}


def picture(x: int = 16) -> Tensor:
    """1 3 96 128: a red square of 24 and a small blue one of 8 on green."""
    image = torch.zeros(1, 3, 96, 128)
    image[:, 1] = 1
    image[:, :, 16:40, x : x + 24] = torch.tensor([1.0, 0, 0])[None, :, None, None]
    image[:, :, 24:32, 72:80] = torch.tensor([0, 0, 1.0])[None, :, None, None]
    return image


def test_every_segment_has_a_colour_of_its_own():
    hint = painted(picture())
    assert hint.shape == (1, 3, 96, 128)
    found = areas(hint[0])
    assert min(min(colour) for colour in found) >= 0.2
    assert sorted(found.values()) == pytest.approx([64, 576, 96 * 128 - 640], abs=8), "but for corners"


def test_colours_are_the_seeds_and_stay_when_things_move():
    first, moved, other = painted(picture()), painted(picture(20)), painted(picture(), seed=1)
    assert torch.equal(first, painted(picture()))
    assert set(areas(first[0])) == set(areas(moved[0])) and set(areas(first[0])).isdisjoint(set(areas(other[0])))
    both = painted(torch.cat([picture(), picture(20)]))
    assert torch.equal(both, torch.cat([first, moved]))


@pytest.mark.parametrize("values", [{"quality": 0.96}, {"stability": 1.0}, {"points": 1}])
def test_what_is_not_good_enough_or_not_sought_is_left_out(values: dict[str, Any]):
    assert len(areas(painted(picture(), **values)[0])) < len(areas(painted(picture())[0]))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (40, 3)])
def test_strips(size: tuple[int, int]):
    assert painted(torch.rand(1, 3, *size)).shape == (1, 3, *size)


def test_more_segments_than_colours():
    masks = torch.eye(400, dtype=torch.bool).view(400, 20, 20)
    assert len(sam.labelled(masks).unique()) == 256


def test_the_parts_are_the_librarys():
    logits = torch.randn(40, 24, 32, generator=torch.Generator().manual_seed(3)).cumsum(1).cumsum(2)
    logits[0] = -9
    theirs = library._compute_stability_score(logits, 0, 1).nan_to_num(0)
    torch.testing.assert_close(sam.stability(logits), theirs)
    corners = sam.boxes(logits[1:] > 0)
    torch.testing.assert_close(corners, library._batched_mask_to_box(logits[1:] > 0).float())
    quality = torch.rand(39, generator=torch.Generator().manual_seed(4))
    kept = batched_nms(corners, quality, torch.zeros(39), sam.OVERLAP)
    assert 2 < len(kept) < 39 and torch.equal(sam.distinct(corners, quality), kept)
    torch.testing.assert_close(sam.grid(5, 48, 64), library._build_point_grid(5) * torch.tensor([64, 48]))


@pytest.mark.parametrize("seed", [3, 5, 7])
def test_segments_are_the_librarys(seed: int):
    torch.manual_seed(seed)
    network: Any = livelier(small_sam()).requires_grad_(False)
    coarse = torch.rand(1, 3, 7, 7)
    image = nn.functional.interpolate(coarse, size=(48, 64), mode="bicubic").clamp(0, 1).mul(255).round()
    processor: Any = SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, resample=3)
    find: Any = pipeline("mask-generation", model=network, image_processor=processor)
    photo = Image.fromarray(image[0].byte().movedim(0, -1).numpy())
    theirs = find(photo, points_per_crop=4, pred_iou_thresh=1e-9, stability_score_thresh=0)["masks"]
    ours = sam.segments(network, image / 255, SamSettings(points=4, quality=0.0, stability=0.0))
    assert torch.equal(ours, torch.stack([torch.as_tensor(mask) for mask in theirs]))
