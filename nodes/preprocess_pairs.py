"""Preprocessors that need more than a picture: a mask, a second picture, or room around it."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io
from torch import Tensor

from ..cn_core.preprocess.color_fix import ColorFixSettings, color_fix
from ..cn_core.preprocess.flow import Direction, FlowSettings, Preset, flow_hint
from ..cn_core.preprocess.frames import at_resolution
from ..cn_core.preprocess.inpaint import Fill, InpaintSettings, OutpaintSettings, inpaint_hint, outpaint
from ..cn_core.preprocess.preprocessor import Group
from ..cn_core.preprocess.stereo import Method, StereoSettings, stereo_depth
from .boundary import to_image, to_pixels
from .forms import resolution, widgets
from .generated import category


def schema(
    name: tuple[str, str],
    group: Group,
    description: str,
    aliases: str,
    inputs: Sequence[io.Input],
    outputs: Sequence[io.Output],
) -> io.Schema:
    """What these nodes have in common. `name`: id and what is shown; `aliases`: with commas."""
    return io.Schema(
        node_id=name[0],
        display_name=name[1],
        category=category(group),
        description=description,
        search_aliases=aliases.split(", "),
        inputs=list(inputs),
        outputs=list(outputs),
    )


class PreprocessInpaint(io.ComfyNode):
    """Holes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            ("PreprocessInpaint", "Inpaint Preprocessor"),
            "regions",
            "The picture with a hole where the mask is, the hint of Inpaint ControlNets. All else stays to the bit.",
            "inpaint, InpaintPreprocessor, mask",
            [
                io.Image.Input("image", tooltip="The picture; one for many masks, or as many as there are masks."),
                io.Mask.Input("mask", tooltip="White is made anew. Resized to the picture."),
                *widgets(InpaintSettings),
                resolution(),
            ],
            [io.Image.Output(display_name="hint", tooltip="With -1 in the hole it looks black in previews.")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, image: Tensor, mask: Tensor, fill: Fill, resolution: int
    ) -> io.NodeOutput:
        """Batch in, batch out."""
        pixels = at_resolution(to_pixels(image), resolution)
        return io.NodeOutput(to_image(inpaint_hint(pixels, mask, InpaintSettings(fill=fill))))


class PreprocessOutpaint(io.ComfyNode):
    """Room."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            ("PreprocessOutpaint", "Outpaint Preprocessor"),
            "regions",
            "Adds room around a picture: the hint of Inpaint ControlNets, the mask and the picture to sample from.",
            "outpaint, pad, extend, uncrop",
            [io.Image.Input("image", tooltip="The picture that shall grow."), *widgets(OutpaintSettings)],
            [
                io.Image.Output(display_name="hint"),
                io.Mask.Output(display_name="mask", tooltip="White is made anew."),
                io.Image.Output(display_name="image", tooltip="The larger picture, its border repeated outwards."),
            ],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, image: Tensor, left: int, top: int, right: int, bottom: int, overlap: int, fill: Fill
    ) -> io.NodeOutput:
        """Batch in, batch out."""
        settings = OutpaintSettings(left=left, top=top, right=right, bottom=bottom, overlap=overlap, fill=fill)
        hint, mask, larger = outpaint(to_pixels(image), settings)
        return io.NodeOutput(to_image(hint), mask, to_image(larger))


class PreprocessColorFix(io.ComfyNode):
    """Colours."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            ("PreprocessColorFix", "Tile Color Fix"),
            "colour and detail",
            "Gives a picture the colours of another one and keeps its detail: after tiled upscaling, or before it.",
            "tile_colorfix, color match, color transfer",
            [
                io.Image.Input("image", tooltip="Its detail is kept."),
                io.Image.Input("reference", tooltip="Its colours are taken. Resized to the picture."),
                *widgets(ColorFixSettings),
                resolution(),
            ],
            [io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, image: Tensor, reference: Tensor, variation: float, sharpness: float, resolution: int
    ) -> io.NodeOutput:
        """Batch in, batch out."""
        pixels = at_resolution(to_pixels(image), resolution)
        settings = ColorFixSettings(variation=variation, sharpness=sharpness)
        return io.NodeOutput(to_image(color_fix(pixels, to_pixels(reference), settings)))


class PreprocessStereoDepth(io.ComfyNode):
    """Depth of a pair."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            ("PreprocessStereoDepth", "Stereo Depth Preprocessor"),
            "depth, normals, motion",
            "Depth from two pictures taken side by side, or from frames of a camera that moves sideways; no network.",
            "depth, stereo, parallax, disparity, SGBM",
            [
                io.Image.Input("left", tooltip="Seen from the left; or the later frame of a camera that moves left."),
                io.Image.Input("right", tooltip="Seen from the right, of the same size."),
                *widgets(StereoSettings),
                resolution(),
            ],
            [
                io.Image.Output(display_name="hint", tooltip="Near is white; one range for the batch."),
                io.Mask.Output(display_name="found", tooltip="White where the pictures match; the rest is filled in."),
            ],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        left: Tensor,
        right: Tensor,
        method: Method,
        max_disparity: int,
        block: int,
        percentile: float,
        resolution: int,
    ) -> io.NodeOutput:
        """Batch in, batch out."""
        settings = StereoSettings(method=method, max_disparity=max_disparity, block=block, percentile=percentile)
        lefts, rights = (at_resolution(to_pixels(side), resolution) for side in (left, right))
        depth, found = stereo_depth(lefts, rights, settings)
        return io.NodeOutput(to_image(depth), found)


class PreprocessOpticalFlow(io.ComfyNode):
    """Motion."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            ("PreprocessOpticalFlow", "Optical Flow Preprocessor"),
            "depth, normals, motion",
            "Motion between the frames of a video as colours (Middlebury's), one for each frame; no network.",
            "optical flow, motion, DIS, unimatch",
            [
                io.Image.Input("image", tooltip="Frames of a video; or the pictures that `following` follows."),
                *widgets(FlowSettings),
                resolution(),
                io.Image.Input(
                    "following", optional=True, tooltip="Pictures that follow; without it each one's next in the batch."
                ),
            ],
            [io.Image.Output(display_name="hint")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        image: Tensor,
        preset: Preset,
        direction: Direction,
        full_color: float,
        resolution: int,
        following: Tensor | None = None,
    ) -> io.NodeOutput:
        """As many as came in."""
        settings = FlowSettings(preset=preset, direction=direction, full_color=full_color)
        pixels = at_resolution(to_pixels(image), resolution)
        others = None if following is None else at_resolution(to_pixels(following), resolution)
        return io.NodeOutput(to_image(flow_hint(pixels, others, settings)))


PAIR_NODES = (
    PreprocessInpaint,
    PreprocessOutpaint,
    PreprocessColorFix,
    PreprocessStereoDepth,
    PreprocessOpticalFlow,
)
