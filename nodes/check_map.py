"""`CheckControlMap`: is a hint what a ControlNet expects? Warnings before a run, and upright polarity."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..cn_core.errors import ControlNetKitError
from ..cn_core.preprocess.auto import map_kind
from ..cn_core.preprocess.lint_map import Finding, lint, upright
from ..cn_core.preprocess.looks import look
from ..cn_core.preprocess.map_kinds import MAP_KINDS, MapKind
from ..cn_core.preprocess.palettes import PALETTES
from .auto import AUTO, Loaded, control_input, evidence_of
from .boundary import to_image, to_pixels
from .fit import picture_size


def expected_kind(kind: str, control_net: Loaded | None, pixels: Tensor) -> MapKind:
    """As chosen, else what the ControlNet takes, else what B 3 H W looks like; raises ControlNetKitError."""
    if kind in MAP_KINDS:
        return kind
    return guessed(pixels) if control_net is None else map_kind(evidence_of(control_net))


def guessed(pixels: Tensor) -> MapKind:
    """The kind that the first picture of B 3 H W looks like."""
    seen = look(pixels[0].movedim(0, -1).float().cpu().clamp(0, 1).contiguous().numpy())
    if seen is None:
        raise ControlNetKitError(
            "CheckControlMap: the image looks like no map of any kind, like a photograph. Choose its kind, or connect "
            "a `control_net`."
        )
    return seen.kind


def reported(kind: MapKind, findings: tuple[Finding, ...], count: int) -> str:
    """A line for each finding."""
    if not findings:
        return f"{kind}: nothing wrong was found."
    return "\n".join([f"{kind}:", *(f"WARNING: {one.text}{places(one, count)}" for one in findings)])


def places(finding: Finding, count: int) -> str:
    """Which pictures, unless it is all of them."""
    if len(finding.pictures) == count:
        return ""
    return f" (pictures {', '.join(map(str, finding.pictures))} of the batch, counted from 0)"


class CheckControlMap(io.ComfyNode):
    """The report, and the map."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="CheckControlMap",
            display_name="Check Control Map",
            category="ControlNet Kit",
            description="Looks for what is wrong with a hint: inverted, empty, too few levels, the colours of another "
            "data set, flipped normals, a photograph instead of a map, the wrong size. Can invert dark lines on light.",
            search_aliases=["lint", "inverted", "polarity", "validate", "hint"],
            inputs=[
                io.Image.Input("image", tooltip="A finished hint, or a batch of them."),
                io.Combo.Input(
                    "kind",
                    options=[AUTO, *MAP_KINDS],
                    default=AUTO,
                    tooltip="What it should show; auto: what the control_net takes, or without one what it looks like.",
                ),
                io.Boolean.Input(
                    "fix_polarity", default=True, tooltip="Invert lines and poses that are dark on light."
                ),
                io.Combo.Input(
                    "palette",
                    options=list(PALETTES),
                    default="ADE20K",
                    tooltip="Segmentation: the data set whose colours the ControlNet knows.",
                ),
                control_input("The ControlNet that the hint is for, from Load ControlNet (Kit).", optional=True),
                io.Latent.Input("latent", optional=True, tooltip="What will be sampled: gives the size."),
            ],
            outputs=[
                io.Image.Output(display_name="hint"),
                io.String.Output(display_name="report"),
                io.Boolean.Output(display_name="ok"),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        image: Tensor,
        kind: str,
        fix_polarity: bool,
        palette: str,
        control_net: Loaded | None = None,
        latent: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        """`ok` is of the map that came in."""
        pixels = to_pixels(image)
        expected = expected_kind(kind, control_net, pixels)
        target = None if latent is None else picture_size(latent)
        findings = lint(expected, pixels, target=target, palette=palette)
        text = reported(expected, findings, len(pixels))
        hint = upright(expected, pixels) if fix_polarity else pixels
        return io.NodeOutput(to_image(hint), text, not findings, ui=ui.PreviewText(text))
