"""The options of `ApplyControlNet`: every option node takes options, changes its part and passes them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from comfy_api.latest import io

from ..cn_core.errors import ControlNetKitError

Options = io.Custom("CONTROLNET_OPTIONS")
CATEGORY = "ControlNet Kit/options"


def chained() -> io.Input:
    """The options so far."""
    return Options.Input("options", optional=True, tooltip="Options to add to, from another option node.")


def schema(node_id: str, display_name: str, description: str, inputs: Sequence[io.Input]) -> io.Schema:
    """What all option nodes have in common."""
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        category=CATEGORY,
        description=description,
        inputs=[*inputs, chained()],
        outputs=[Options.Output(display_name="options")],
    )


def problem(read: Callable[[str], object], text: str | None) -> bool | str:
    """What is wrong with a text, for the host's validation of prompts; True for nothing, empty texts and links."""
    try:
        if text and text.strip():
            read(text)
    except ControlNetKitError as error:
        return str(error)
    return True
