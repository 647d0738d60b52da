"""Hints at the right size before they are used, and masks made of them."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..cn_core.errors import ControlNetKitError
from ..cn_core.image import Resampler, ResizeMode, pixel_perfect_resolution, resize_hint
from ..cn_core.modulation.masks import from_hint
from .boundary import to_image, to_pixels


class FitControlHint(io.ComfyNode):
    """The hint as the ControlNet will see it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="FitControlHint",
            display_name="Fit ControlNet Hint",
            category="ControlNet Kit",
            description="Resizes a hint to the picture to be made, keeps one-pixel lines and label colours, and "
            "says at which resolution a preprocessor should look at the original (pixel perfect).",
            search_aliases=["pixel perfect", "resize hint", "crop and resize"],
            inputs=[
                io.Image.Input("image", tooltip="A hint; or the photograph that it will be made from."),
                io.Latent.Input("latent", tooltip="What will be sampled: gives the size."),
                io.Combo.Input(
                    "resize_mode",
                    options=list(get_args(ResizeMode)),
                    default="crop",
                    tooltip="Stretch to the size, crop to its proportions, or fill up to them.",
                ),
                io.Combo.Input(
                    "resampler",
                    options=list(get_args(Resampler)),
                    default="auto",
                    tooltip="auto looks at the picture: lines stay lines, labels keep colours, the rest is smooth.",
                ),
            ],
            outputs=[io.Image.Output(display_name="hint"), io.Int.Output(display_name="resolution")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, image: Tensor, latent: dict[str, Any], resize_mode: ResizeMode, resampler: Resampler
    ) -> io.NodeOutput:
        """The fitted hint, and the resolution for a preprocessor."""
        pixels = to_pixels(image)
        size = picture_size(latent)
        resolution = pixel_perfect_resolution((pixels.shape[2], pixels.shape[3]), size, resize_mode)
        return io.NodeOutput(to_image(resize_hint(pixels, size, resize_mode, resampler)), resolution)


def picture_size(latent: dict[str, Any]) -> tuple[int, int]:
    """Height and width in pixels of what a LATENT becomes."""
    ratio = latent.get("downscale_ratio_spacial", 8)
    return ratio * latent["samples"].shape[-2], ratio * latent["samples"].shape[-1]


class MaskFromControlHint(io.ComfyNode):
    """An effect mask: black parts of the hint leave the model free."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="MaskFromControlHint",
            display_name="Effect Mask from ControlNet Hint",
            category="ControlNet Kit",
            description="A mask of where a hint says something. As effect mask of Apply ControlNet it leaves the model "
            "free where the hint is black.",
            search_aliases=["auto mask", "effect mask"],
            inputs=[
                io.Image.Input("image", tooltip="A hint that is black where it says nothing: lines, a pose, depth."),
                io.Float.Input(
                    "threshold", default=0.05, min=0.0, max=1.0, step=0.01, tooltip="Brighter than this is a hint."
                ),
                io.Int.Input(
                    "reach", default=16, min=0, max=512, tooltip="How far around it the control acts, in pixels."
                ),
                io.Float.Input(
                    "feather",
                    default=16.0,
                    min=0.0,
                    max=512.0,
                    step=1.0,
                    tooltip="Width of the soft border, in pixels.",
                ),
            ],
            outputs=[io.Mask.Output(display_name="effect_mask")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, image: Tensor, threshold: float, reach: int, feather: float
    ) -> io.NodeOutput:
        """One mask for each picture; a hint that is black all over is an error, for it would switch the control off."""
        mask = from_hint(to_pixels(image), threshold=threshold, reach_px=reach, feather_px=feather)
        if not mask.any():
            raise ControlNetKitError(
                f"MaskFromControlHint: no pixel of the hint is brighter than {threshold:g}: there would be no control. "
                "Lower the threshold, or connect another hint."
            )
        return io.NodeOutput(mask[:, 0])
