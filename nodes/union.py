"""Union ControlNets: which type each hint is, and several hints at once."""

from __future__ import annotations

import comfy.controlnet
from comfy_api.latest import io
from torch import Tensor

from ..cn_core.control_types import FLUX, XINSIR, index
from ..cn_core.errors import ControlNetKitError
from .boundary import to_pixels
from .control import KitControl, as_kit

AUTO = "auto"
TYPES = [AUTO, *dict.fromkeys(name for shared in (*XINSIR, *FLUX) for name in shared.split("/"))]
"""Every name that some union file knows; the file decides."""


def type_input(tooltip: str) -> io.Input:
    """A choice of types."""
    return io.Combo.Input("type", options=TYPES, default=AUTO, tooltip=tooltip)


def typed(control: KitControl, name: str) -> int:
    """The number of a type in the control's file; raises ControlNetKitError, with the types that the file has."""
    return index(name, control.source.family, len(control.source.control_types))


class SetControlNetType(io.ComfyNode):
    """The type of the hint that ApplyControlNet will get."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="SetControlNetType",
            display_name="Set ControlNet Type (Kit)",
            category="ControlNet Kit",
            description="Union ControlNets: what the hint shows. Names are looked up in the file's own table, for SDXL "
            "and Flux alike.",
            search_aliases=["union", "promax", "control type"],
            inputs=[
                io.ControlNet.Input("control_net", tooltip="A union ControlNet."),
                type_input("Of the hint in Apply ControlNet; auto leaves it to the network."),
            ],
            outputs=[io.ControlNet.Output(display_name="control_net")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        control_net: comfy.controlnet.ControlBase,
        type: str,  # noqa: A002  the host's name for it
    ) -> io.NodeOutput:
        """A copy with the type."""
        control = as_kit(control_net)
        control.set_extra_arg("control_type", [] if type == AUTO else [typed(control, type)])
        return io.NodeOutput(control)


class AddControlNetHint(io.ComfyNode):
    """One more hint for a union ControlNet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="AddControlNetHint",
            display_name="Add ControlNet Hint",
            category="ControlNet Kit",
            description="Union ControlNets: a further hint of another type, fused by the network. Chain several; the "
            "first hint is that of Apply ControlNet, its type that of Set ControlNet Type.",
            search_aliases=["union", "promax", "multi control"],
            inputs=[
                io.ControlNet.Input("control_net", tooltip="A union ControlNet with the type of its first hint set."),
                io.Image.Input("image", tooltip="The further hint."),
                io.Combo.Input("type", options=TYPES[1:], tooltip="Of the further hint."),
            ],
            outputs=[io.ControlNet.Output(display_name="control_net")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        control_net: comfy.controlnet.ControlBase,
        image: Tensor,
        type: str,  # noqa: A002
    ) -> io.NodeOutput:
        """A copy with the hint."""
        control = as_kit(control_net)
        number = typed(control, type)
        if not control.control_types:
            raise ControlNetKitError(
                "AddControlNetHint: the first hint has no type yet. Put Set ControlNet Type before this node."
            )
        control.more_hints = (*control.more_hints, (to_pixels(image), number))
        return io.NodeOutput(control)
