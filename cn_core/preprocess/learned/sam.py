"""Segments of anything, in colours that only say which is which: SAM (Kirillov et al. 2023), through transformers.

Shapes: B batch, P points, N segments, K colours, H W pixels of a picture, S side of the square that the network sees,
h w of what it gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import Settings, between
from .depth_maps import resized
from .detector import LearnedPreprocessor
from .networks import NetworkDetector, normalised
from .transformers_folder import PACKAGES, from_folder, repository

POINTS_AT_ONCE = 64
MARGIN = 1.0
"""By how much logits are raised and lowered to see whether a segment stays as it is."""
OVERLAP = 0.7
"""Segments whose boxes have a larger intersection over union are one."""
CELLS = 16
"""Along each side of a picture; each has a colour, so that most segments of a video keep theirs."""


@dataclass(frozen=True, kw_only=True)
class SamSettings(Settings):
    """Which segments are found, and how they are painted; defaults as the authors'."""

    points: int = field(
        default=32, metadata=between(1, 64, "Points along each side at which segments are sought; fewer are faster.")
    )
    quality: float = field(
        default=0.88, metadata=between(0.0, 1.0, "Segments that the network itself thinks worse of are left out.")
    )
    stability: float = field(
        default=0.95, metadata=between(0.0, 1.0, "Segments whose outlines are less certain are left out.")
    )
    seed: int = field(default=0, metadata=between(0, 2**64 - 1, "Every number is another set of colours."))


def painted(network: Any, images: Tensor, settings: SamSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W: every pixel in the colour of its smallest segment, black where there is none."""
    random = torch.Generator().manual_seed(settings.seed)
    colours = torch.cat([torch.zeros(1, 3), 0.2 + 0.8 * torch.rand(CELLS**2, 3, generator=random)])  # K 3
    labels = [labelled(segments(network, image, settings)) for image in images.split(1)]
    return colours.to(images.device)[torch.stack(labels)].movedim(-1, 1)


def segments(network: Any, image: Tensor, settings: SamSettings) -> Tensor:
    """1 3 H W -> N H W bool, the largest first."""
    side: int = network.config.vision_config.image_size
    scale = side / max(image.shape[2:])
    rows, columns = (max(int(length * scale + 0.5), 1) for length in image.shape[2:])
    seen = normalised(resized(image.float(), (rows, columns))).to(image.dtype)
    embeddings = network.get_image_embeddings(F.pad(seen, (0, side - columns, 0, side - rows)))
    logits, quality = list[Tensor](), list[Tensor]()
    for points in grid(settings.points, rows, columns).to(image).split(POINTS_AT_ONCE):
        given = network(image_embeddings=embeddings, input_points=points[None, :, None])
        masks, scores = given.pred_masks[0].flatten(0, 1).float(), given.iou_scores[0].flatten().float()
        likely = scores > settings.quality
        masks, scores = masks[likely], scores[likely]
        steady = stability(inside(masks, rows / side, columns / side)) > settings.stability
        logits.append(masks[steady])
        quality.append(scores[steady])
    every = torch.cat(logits)
    kept = every[distinct(boxes(inside(every, rows / side, columns / side) > 0), torch.cat(quality))]
    found = [full_size(one[None, None], side, (rows, columns), image) > 0 for one in kept]
    found.sort(key=lambda mask: int(mask.sum()), reverse=True)
    return torch.stack(found) if found else image.new_zeros(0, *image.shape[2:], dtype=torch.bool)


def grid(points: int, rows: int, columns: int) -> Tensor:
    """P 2: x and y in pixels of what the network sees, as many along both sides."""
    places = (torch.arange(points) + 0.5) / points
    return torch.cartesian_prod(places * rows, places * columns).flip(1).view(-1, 2)


def inside(masks: Tensor, rows: float, columns: float) -> Tensor:
    """N h w without what was added to make the picture a square; the rest is given as shares of the sides."""
    return masks[:, : max(round(masks.shape[1] * rows), 1), : max(round(masks.shape[2] * columns), 1)]


def stability(logits: Tensor) -> Tensor:
    """N h w -> N: intersection over union of what is inside at a higher and at a lower threshold; 0 for nothing."""
    high, low = ((logits > threshold).sum(dim=(1, 2)) for threshold in (MARGIN, -MARGIN))
    return high / low.clamp(min=1)


def boxes(masks: Tensor) -> Tensor:
    """N h w bool -> N 4: left, top, right and bottom pixel of each."""
    ends = list[Tensor]()
    for along in (1, 2):
        touched = masks.any(dim=along).byte()  # N w, N h
        ends += [touched.argmax(dim=1), touched.shape[1] - 1 - touched.flip(1).argmax(dim=1)]
    return torch.stack([ends[0], ends[2], ends[1], ends[3]], dim=1).float()


def distinct(boxes: Tensor, quality: Tensor) -> Tensor:
    """N 4, N -> the numbers of those that no better one overlaps: non-maximum suppression."""
    left, kept = quality.argsort(descending=True, stable=True), list[Tensor]()
    while len(left):
        best, rest = boxes[left[0]], boxes[left[1:]]
        shared = torch.minimum(best[2:], rest[:, 2:]) - torch.maximum(best[:2], rest[:, :2])
        area = shared.clamp(min=0).prod(dim=1)
        union = (best[2:] - best[:2]).prod() + (rest[:, 2:] - rest[:, :2]).prod(dim=1) - area
        kept.append(left[0])
        left = left[1:][area <= OVERLAP * union]
    return torch.stack(kept) if kept else left


def full_size(logits: Tensor, side: int, seen: tuple[int, int], image: Tensor) -> Tensor:
    """1 1 h w -> H W."""
    square = F.interpolate(logits, size=(side, side), mode="bilinear")
    return F.interpolate(square[:, :, : seen[0], : seen[1]], size=image.shape[2:], mode="bilinear")[0, 0]


def labelled(masks: Tensor) -> Tensor:
    """N H W, the largest first -> H W: 1 + the number of the cell whose colour the last segment there gets, else 0.

    It is the cell of the segment's centre, or the next one that is free.
    """
    labels, taken = torch.zeros(masks.shape[1:], dtype=torch.long, device=masks.device), set[int]()
    for mask in masks:
        if not mask.any():
            continue
        centre = mask.nonzero().float().mean(dim=0) / torch.tensor(mask.shape, device=mask.device)
        y, x = (centre * CELLS).int().tolist()
        after = ((y * CELLS + x + step) % CELLS**2 for step in range(CELLS**2))
        cell = next((one for one in after if one not in taken), y * CELLS + x)
        taken.add(cell)
        labels[mask] = 1 + cell
    return labels


def load(paths: tuple[Path, ...]) -> NetworkDetector[SamSettings]:
    """The network."""
    from transformers import SamModel

    return NetworkDetector(network=from_folder(SamModel, paths), draw=painted)


ENTRIES = (
    LearnedPreprocessor(
        name="sam",
        node_id="PreprocessSAM",
        title="Segment Anything",
        group="regions",
        description="Every thing and every part of it in a colour of its own, whatever it is (SAM).",
        settings=SamSettings,
        weights=repository("facebook/sam-vit-base", "Apache-2.0"),
        load=load,
        packages=PACKAGES,
        half=False,
        aliases=("SAM", "SamDetector", "segment anything", "segmentation"),
    ),
)
