"""Option nodes for how residuals count: layers and sides, frames, stacking, savings."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from comfy_api.latest import io

from ..cn_core.errors import ControlNetKitError
from ..cn_core.modulation.frames import FrameMode, parse_strengths
from ..cn_core.modulation.settings import Modulation, Reuse
from ..cn_core.modulation.stacking import Stacking
from ..cn_core.modulation.weights import LayerWeights
from .options import problem, schema


def numbers(text: str) -> tuple[float, ...]:
    """Comma separated numbers; none for an empty text."""
    try:
        return tuple(float(part) for part in text.split(",")) if text.strip() else ()
    except ValueError as error:
        raise ControlNetKitError(
            f'Layer weights are numbers with commas, such as "1, 0.8, 0.5", got "{text}".'
        ) from error


def factor(name: str, tooltip: str) -> io.Input:
    """A multiplier."""
    return io.Float.Input(name, default=1.0, min=-10.0, max=10.0, step=0.01, tooltip=tooltip)


class ControlNetWeights(io.ComfyNode):
    """How much each layer and each side counts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "ControlNetWeights",
            "ControlNet Weights",
            "How much the ControlNet counts in the model's layers, and for positive and negative prompt. All multiply.",
            [
                factor("composition", "The deepest third of the layers: where things are."),
                factor("structure", "The middle third: how things are built."),
                factor("detail", "The shallowest third: lines and texture."),
                io.String.Input(
                    "layers",
                    default="",
                    tooltip="A number for each residual, with commas (SD 1.x: 13, shallow to deep, the middle last); "
                    "empty: 1 for all.",
                ),
                factor("positive", "For positive prompts."),
                factor("negative", "For negative prompts; 0 also halves the cost."),
            ],
        )

    @classmethod
    def validate_inputs(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, layers: str | None
    ) -> bool | str:
        """Read the text before anything runs."""
        return problem(numbers, layers)

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        composition: float,
        structure: float,
        detail: float,
        layers: str,
        positive: float,
        negative: float,
        options: Modulation | None = None,
    ) -> io.NodeOutput:
        """With other weights."""
        options = options or Modulation()
        bands = (composition, structure, detail)
        weights = LayerWeights(mode=options.weights.mode, bands=bands, layers=numbers(layers))
        return io.NodeOutput(replace(options, weights=weights, positive=positive, negative=negative))


class ControlNetFrames(io.ComfyNode):
    """Batches and video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "ControlNetFrames",
            "ControlNet Frames",
            "Which hint and which strength each picture of a batch, or frame of a video, gets.",
            [
                io.Combo.Input(
                    "hints",
                    options=list(get_args(FrameMode)),
                    default="cycle",
                    tooltip="With fewer hints than pictures: begin again, as ComfyUI does, or stay at the last one.",
                ),
                io.String.Input(
                    "strengths",
                    default="",
                    tooltip="One for each picture, as 1, 0.5, 0 (the last repeats) or 0:8=0.5, -1=0.2; empty: 1.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, strengths: str | None
    ) -> bool | str:
        """Read the text before anything runs."""
        return problem(parse_strengths, strengths)

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, hints: FrameMode, strengths: str, options: Modulation | None = None
    ) -> io.NodeOutput:
        """With other frames."""
        by_frame = parse_strengths(strengths) if strengths.strip() else None
        return io.NodeOutput(replace(options or Modulation(), frames=hints, frame_strengths=by_frame))


class ControlNetStacking(io.ComfyNode):
    """How several ControlNets share one picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "ControlNetStacking",
            "ControlNet Stacking",
            "How this ControlNet joins those before it in the chain, and whether its strength is calibrated.",
            [
                io.Combo.Input(
                    "stacking",
                    options=list(get_args(Stacking)),
                    default="sum",
                    tooltip="sum: as ComfyUI. normalized: the sum, no larger than the stronger one. max: the stronger "
                    "one at each place. mask: this one where its effect mask is, the others elsewhere.",
                ),
                io.Boolean.Input(
                    "calibrate",
                    default=False,
                    tooltip="Measure how large the residuals are beside the model's own features, and scale them so "
                    "that strength 1 means the same for every ControlNet. The number is in the log.",
                ),
            ],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, stacking: Stacking, calibrate: bool, options: Modulation | None = None
    ) -> io.NodeOutput:
        """With another way of stacking."""
        return io.NodeOutput(replace(options or Modulation(), stacking=stacking, calibrate=calibrate))


class ControlNetSaving(io.ComfyNode):
    """Less time and memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "ControlNetSaving",
            "ControlNet Saving",
            "Spares time and memory: takes residuals of an earlier step again. The log says how far off they were.",
            [
                io.Int.Input(
                    "every_steps", default=1, min=1, max=100, tooltip="Compute at every so many steps; 1: at each."
                ),
                io.Float.Input(
                    "log_sigma",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Compute again when the logarithm of sigma has moved this far; 0: do not look at it.",
                ),
                io.Boolean.Input(
                    "free_after_window",
                    default=False,
                    tooltip="Give the ControlNet's memory back during the run, as soon as its window has ended.",
                ),
            ],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, every_steps: int, log_sigma: float, free_after_window: bool, options: Modulation | None = None
    ) -> io.NodeOutput:
        """With other savings."""
        reuse = Reuse(steps=every_steps, log_sigma=log_sigma)
        return io.NodeOutput(replace(options or Modulation(), reuse=reuse, free_after_window=free_after_window))
