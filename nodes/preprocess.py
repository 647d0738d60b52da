"""Preprocessors: pictures in, hints out. One node for each entry of the core's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..cn_core.preprocess.preprocessor import Preprocessor
from ..cn_core.preprocess.registry import PREPROCESSORS
from ..cn_core.preprocess.settings import Settings
from .boundary import to_image, to_pixels

CATEGORY = "ControlNet Kit/preprocessors"


def widget(one: Field[Any]) -> io.Input:
    """What the host shows for a field of settings."""
    name, limits = one.name, one.metadata
    default: Any = one.default
    tooltip = limits["tooltip"]
    if "choices" in limits:
        return io.Combo.Input(name, options=list(limits["choices"]), default=default, tooltip=tooltip)
    if "min" not in limits:
        return io.Boolean.Input(name, default=default, tooltip=tooltip)
    low, high, step = limits["min"], limits["max"], limits["step"]
    if isinstance(low, float):
        return io.Float.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip)
    # The host's interface would draw another seed for every run by itself.
    after: Any = io.ControlAfterGenerate.fixed if name == "seed" else None
    return io.Int.Input(
        name, default=default, min=low, max=high, step=step, tooltip=tooltip, control_after_generate=after
    )


def widgets(settings: type[Settings]) -> list[io.Input]:
    """One for each field, in their order."""
    return [widget(one) for one in fields(settings)]


def resolution() -> io.Input:
    """The rule that all preprocessors follow."""
    return io.Int.Input(
        "resolution",
        default=0,
        min=0,
        max=16384,
        step=8,
        tooltip="Short side in pixels at which the hint is made, and of the output; 0: as it is.",
    )


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
PreprocessCanny = PREPROCESSOR_NODES["PreprocessCanny"]
