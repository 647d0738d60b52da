"""Preprocessors that find poses: pictures in, hints and POSE_KEYPOINT out. One node for each such entry of the core's.

Shapes: B batch, P people, 136 points of a person (all parts).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..cn_core.preprocess.learned.detector import LearnedPreprocessor, PoseDetector
from ..cn_core.preprocess.learned.registry import LEARNED
from ..cn_core.preprocess.pose.draw import DrawSettings, draw, empty
from ..cn_core.preprocess.pose.keypoints import Frame, everything, from_everything, seen
from ..cn_core.preprocess.pose.read import write
from .boundary import to_image
from .generated import preprocessor_node
from .learned import pictures
from .pose import pose_output, report, report_output
from .shelf import Shelf, contents

MOST_PEOPLE = 100
"""In a picture, the first ones that a detector gives."""


def node_of(entry: LearnedPreprocessor[Any], shelf: Shelf) -> type[io.ComfyNode]:
    """The node of an entry, whose report says which hints are black; the shelf is that of all of them."""

    def run(image: Tensor, settings: Any, resolution: int) -> io.NodeOutput:
        frames = found(shelf, entry, pictures(image, resolution), settings)
        hints = draw(frames, settings)
        black = ", ".join(map(str, empty(hints)))
        notes = [f"Black, for nobody in them is certain enough or switched on: {black}."] if black else []
        return io.NodeOutput(to_image(hints), write(frames), report(frames, notes))

    return preprocessor_node(entry, run, (pose_output(), report_output()))


def found(shelf: Shelf, entry: LearnedPreprocessor[Any], images: Tensor, settings: Any) -> tuple[Frame, ...]:
    """B 3 H W -> the people of each picture; who was found before is not sought again to be drawn otherwise."""
    height, width = images.shape[2:]

    def make(fresh: Tensor) -> Tensor:
        loaded = shelf.detector(entry, settings, pixels=fresh[:, 0].numel())
        return torch.stack([packed(frame) for frame in cast(PoseDetector, loaded.detector).keypoints(fresh, settings)])

    people = shelf.each(images, (entry.name, "keypoints", sought(settings), contents(entry, settings)), make)
    return tuple(unpacked(points, width, height) for points in people)


def sought(settings: DrawSettings) -> tuple[object, ...]:
    """The settings that are not for the drawing, and those for parts that are not sought at all."""
    drawing = {one.name for one in fields(DrawSettings)} - {"hands", "face"}
    return tuple((one.name, getattr(settings, one.name)) for one in fields(settings) if one.name not in drawing)


def packed(frame: Frame) -> Tensor:
    """P 136 3 with zeros for people who are not there, so that all pictures have as many."""
    points = np.zeros((MOST_PEOPLE, 136, 3), np.float32)
    for index, person in enumerate(frame.people[:MOST_PEOPLE]):
        points[index] = everything(person)
    return torch.from_numpy(points)


def unpacked(points: Tensor, width: int, height: int) -> Frame:
    """The opposite."""
    people = tuple(from_everything(person) for person in points.numpy() if seen(person).any())
    return Frame(people=people, width=width, height=height)


def pose_nodes(shelf: Shelf) -> Mapping[str, type[io.ComfyNode]]:
    """By id."""
    return {entry.node_id: node_of(entry, shelf) for entry in LEARNED.values() if entry.poses}
