"""Preprocessors: pictures in, hints out. One node for each entry of the core's table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..cn_core.preprocess.preprocessor import Preprocessor
from ..cn_core.preprocess.registry import PREPROCESSORS
from .boundary import to_image, to_pixels
from .forms import resolution, widgets

CATEGORY = "ControlNet Kit/preprocessors"


def node_of(entry: Preprocessor[Any]) -> type[io.ComfyNode]:
    """The node class of a preprocessor, named as its id."""

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            """What the host shows."""
            return io.Schema(
                node_id=entry.node_id,
                display_name=f"{entry.title} Preprocessor",
                category=CATEGORY,
                description=entry.description,
                search_aliases=list(entry.aliases),
                inputs=[
                    io.Image.Input("image", tooltip="A photograph, a drawing, or a batch of them."),
                    *widgets(entry.settings),
                    resolution(),
                ],
                outputs=[io.Image.Output(display_name="hint")],
            )

        @classmethod
        def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
            cls, image: Tensor, resolution: int, **values: Any
        ) -> io.NodeOutput:
            """Batch in, batch out."""
            return io.NodeOutput(to_image(entry(to_pixels(image), entry.configured(values), resolution=resolution)))

    Node.__doc__ = entry.description
    Node.__name__ = Node.__qualname__ = entry.node_id
    return Node


PREPROCESSOR_NODES: Mapping[str, type[io.ComfyNode]] = {
    entry.node_id: node_of(entry) for entry in PREPROCESSORS.values()
}
"""By id."""
