"""`InspectControlNet`: what a file is, before it is loaded."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..cn_core.files.checkpoint import read
from ..cn_core.files.inspect import describe
from .load import located, names


class InspectControlNet(io.ComfyNode):
    """From the folders that Load ControlNet reads."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="InspectControlNet",
            display_name="Inspect ControlNet",
            category="ControlNet Kit",
            description="What a ControlNet file is: its family and kind, what its hints show, which preprocessor makes "
            "them, size, precision, metadata, checksum, and what may go wrong with it.",
            search_aliases=["controlnet info", "model info", "sha256", "metadata", "which preprocessor"],
            inputs=[
                io.Combo.Input(
                    "control_net_name", options=names(), tooltip="A file in models/controlnet or models/model_patches."
                )
            ],
            outputs=[io.String.Output(display_name="text"), io.String.Output(display_name="json")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, control_net_name: str) -> io.NodeOutput:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The file is read, and nothing is put into a network."""
        report = describe(read(located(control_net_name)))
        return io.NodeOutput(report.to_text(), report.to_json(), ui=ui.PreviewText(report.to_text()))
