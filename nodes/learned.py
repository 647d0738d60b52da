"""Preprocessors with networks: pictures in, hints out. One node for each entry of the core's table that has no own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..cn_core.preprocess.frames import at_resolution
from ..cn_core.preprocess.learned.detector import LearnedPreprocessor
from ..cn_core.preprocess.learned.registry import LEARNED
from .boundary import to_image, to_pixels
from .generated import preprocessor_node
from .shelf import Shelf


def pictures(image: Tensor, resolution: int) -> Tensor:
    """IMAGE -> B 3 H W float32 in [0, 1] at the resolution; raises HintError for what no preprocessor takes."""
    return at_resolution(to_pixels(image), resolution).float().clamp(0, 1)


def node_of(entry: LearnedPreprocessor[Any], shelf: Shelf) -> type[io.ComfyNode]:
    """The node of an entry; the shelf is that of all of them."""

    def run(image: Tensor, settings: Any, resolution: int) -> io.NodeOutput:
        return io.NodeOutput(to_image(shelf.run(entry, pictures(image, resolution), settings)))

    return preprocessor_node(entry, run)


def learned_nodes(shelf: Shelf) -> Mapping[str, type[io.ComfyNode]]:
    """By id: those that make a hint and nothing else."""
    return {entry.node_id: node_of(entry, shelf) for entry in LEARNED.values() if not entry.poses}
