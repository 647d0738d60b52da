"""Preprocessors: pictures in, hints out. One node for each entry of the core's table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..cn_core.preprocess.preprocessor import Preprocessor
from ..cn_core.preprocess.registry import PREPROCESSORS
from .boundary import to_image, to_pixels
from .generated import preprocessor_node


def node_of(entry: Preprocessor[Any]) -> type[io.ComfyNode]:
    """The node of an entry."""

    def run(image: Tensor, settings: Any, resolution: int) -> io.NodeOutput:
        return io.NodeOutput(to_image(entry(to_pixels(image), settings, resolution=resolution)))

    return preprocessor_node(entry, run)


PREPROCESSOR_NODES: Mapping[str, type[io.ComfyNode]] = {
    entry.node_id: node_of(entry) for entry in PREPROCESSORS.values()
}
"""By id."""
