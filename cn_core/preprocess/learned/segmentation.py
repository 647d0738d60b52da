"""What is where, in the colours of data sets: UPerNet with ConvNeXt (small, ADE20K) and OneFormer with Swin-L (ADE20K,
COCO), through transformers.

Shapes: B batch, K classes, Q queries, H W pixels of the pictures, h w of what a network gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..palettes import colours
from ..settings import Settings, between, one_of
from .depth_maps import network_size, resized
from .detector import LearnedPreprocessor
from .networks import NetworkDetector, normalised
from .transformers_folder import PACKAGES, from_folder, repository

PATCH = 32
DataSet = Literal["ADE20K", "COCO"]
TASK = (49406, 518, 10549, 533, 29119, 1550, 49407)
"""OneFormer's prompt "the task is semantic" in CLIP's tokens; zeros follow."""
TASK_LENGTH = 77
ONEFORMER = {
    "ADE20K": repository("shi-labs/oneformer_ade20k_swin_large", "MIT"),
    "COCO": repository("shi-labs/oneformer_coco_swin_large", "MIT"),
}


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings(Settings):
    """How closely the network looks."""

    short_side: int = field(
        default=512,
        metadata=between(
            PATCH, 2048, "Pixels that the network sees of the shorter side; trained with 512.", step=PATCH
        ),
    )


@dataclass(frozen=True, kw_only=True)
class OneFormerSettings(Settings):
    """Which classes, and how closely the network looks."""

    classes: DataSet = field(
        default="ADE20K", metadata=one_of(get_args(DataSet), "ADE20K's 150 are what segmentation ControlNets know.")
    )
    short_side: int = field(
        default=640,
        metadata=between(
            PATCH, 2048, "Pixels that the network sees of the shorter side; trained with 640.", step=PATCH
        ),
    )


def upernet_classes(network: Any, images: Tensor, settings: SegmentationSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W in ADE20K's colours."""
    return painted(network(seen(images, settings.short_side)).logits, images, "ADE20K")


def oneformer_classes(network: Any, images: Tensor, settings: OneFormerSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W in the data set's colours: sum over queries of class times mask."""
    task = torch.zeros(len(images), TASK_LENGTH, device=images.device, dtype=torch.long)
    task[:, : len(TASK)] = torch.tensor(TASK, device=images.device)
    found = network(pixel_values=seen(images, settings.short_side), task_inputs=task)
    classes = found.class_queries_logits.softmax(dim=-1)[..., :-1]  # B Q K, the last class is none
    logits = torch.einsum("bqk,bqhw->bkhw", classes, found.masks_queries_logits.sigmoid())
    return painted(logits, images, settings.classes)


def seen(images: Tensor, short_side: int) -> Tensor:
    """B 3 H W -> the same as a network sees it."""
    height, width = images.shape[2:]
    return normalised(resized(images.float(), network_size(height, width, short_side, PATCH))).to(images.dtype)


def painted(logits: Tensor, images: Tensor, palette: str) -> Tensor:
    """B K h w -> B 3 H W: every pixel in the colour of its likeliest class, picture by picture to save memory."""
    table = torch.from_numpy(colours(palette)).to(logits.device) / 255  # K 3
    size = images.shape[2:]
    labels = [F.interpolate(one[None].float(), size=size, mode="bilinear")[0].argmax(dim=0) for one in logits]
    return table[torch.stack(labels)].movedim(-1, 1)


def load_upernet(paths: tuple[Path, ...]) -> NetworkDetector[SegmentationSettings]:
    """The network."""
    from transformers import UperNetForSemanticSegmentation

    return NetworkDetector(network=from_folder(UperNetForSemanticSegmentation, paths), draw=upernet_classes)


def load_oneformer(paths: tuple[Path, ...]) -> NetworkDetector[OneFormerSettings]:
    """The network of one of the data sets."""
    from transformers import OneFormerForUniversalSegmentation

    return NetworkDetector(network=from_folder(OneFormerForUniversalSegmentation, paths), draw=oneformer_classes)


ENTRIES = (
    LearnedPreprocessor(
        name="segmentation",
        node_id="PreprocessSegmentation",
        title="Segmentation",
        group="regions",
        description="What is where, in ADE20K's colours: the hint of segmentation ControlNets.",
        settings=SegmentationSettings,
        weights=repository("openmmlab/upernet-convnext-small", "MIT"),
        load=load_upernet,
        packages=PACKAGES,
        half=False,
        aliases=("seg", "UperNet", "UniFormer", "ADE20K", "semantic segmentation"),
    ),
    LearnedPreprocessor(
        name="segmentation_oneformer",
        node_id="PreprocessOneFormer",
        title="OneFormer Segmentation",
        group="regions",
        description="What is where, in ADE20K's or COCO's colours, by a large and exact network.",
        settings=OneFormerSettings,
        weights=tuple(file for files in ONEFORMER.values() for file in files),
        needs=lambda settings: ONEFORMER[settings.classes],
        load=load_oneformer,
        packages=PACKAGES,
        half=False,
        aliases=("seg_ofade20k", "seg_ofcoco", "OneFormer", "COCO", "ADE20K"),
    ),
)
