"""Nodes made from the core's tables of preprocessors: one for each entry, all of one form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..cn_core.preprocess.learned.detector import LearnedPreprocessor
from ..cn_core.preprocess.preprocessor import Group, Preprocessor
from .forms import resolution, widgets

Run = Callable[[Tensor, Any, int], io.NodeOutput]
"""(IMAGE, settings, resolution) -> what the node gives."""


def category(group: Group) -> str:
    """Where the menu has the preprocessors of a group."""
    return f"ControlNet Kit/preprocessors/{group}"


def preprocessor_node(
    entry: Preprocessor[Any] | LearnedPreprocessor[Any], run: Run, more: Sequence[io.Output] = ()
) -> type[io.ComfyNode]:
    """The node class of an entry, named as its id; `more` are outputs after the hint."""

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            """What the host shows."""
            return io.Schema(
                node_id=entry.node_id,
                display_name=f"{entry.title} Preprocessor",
                category=category(entry.group),
                description=entry.description,
                search_aliases=list(entry.aliases),
                inputs=[
                    io.Image.Input("image", tooltip="A photograph, a drawing, or a batch of them."),
                    *widgets(entry.settings),
                    resolution(),
                ],
                outputs=[io.Image.Output(display_name="hint"), *more],
            )

        @classmethod
        def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
            cls, image: Tensor, resolution: int, **values: Any
        ) -> io.NodeOutput:
            """Batch in, batch out."""
            return run(image, entry.configured(values), resolution)

    Node.__doc__ = entry.description
    Node.__name__ = Node.__qualname__ = entry.node_id
    return Node
