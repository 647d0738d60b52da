"""Preprocessors: pictures in, hints out."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..cn_core.image import resize_short_side
from .boundary import to_image, to_pixels


class PreprocessCanny(io.ComfyNode):
    """Edges."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="PreprocessCanny",
            display_name="Canny Preprocessor",
            category="ControlNet Kit/preprocessors",
            description="White edges on black, the hint of Canny ControlNets.",
            search_aliases=["canny", "edge detection", "outline", "line art"],
            inputs=[
                io.Image.Input("image", tooltip="A photograph, a drawing, or a batch of them."),
                io.Int.Input(
                    "low_threshold",
                    default=100,
                    min=0,
                    max=255,
                    tooltip="How weak an edge may become before it ends; lower keeps more of it.",
                ),
                io.Int.Input(
                    "high_threshold",
                    default=200,
                    min=0,
                    max=255,
                    tooltip="How strong an edge must be somewhere to be drawn at all; lower draws more edges.",
                ),
                io.Int.Input(
                    "resolution",
                    default=0,
                    min=0,
                    max=16384,
                    step=8,
                    tooltip="Short side in pixels at which edges are sought, and of the output; 0: as it is.",
                ),
            ],
            outputs=[io.Image.Output(display_name="hint")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, image: Tensor, low_threshold: int, high_threshold: int, resolution: int
    ) -> io.NodeOutput:
        """Batch in, batch out."""
        from ..cn_core.preprocess.canny import CannySettings, canny  # OpenCV, only when it is used

        settings = CannySettings(low_threshold=low_threshold, high_threshold=high_threshold)
        return io.NodeOutput(to_image(canny(resize_short_side(to_pixels(image), resolution), settings)))
