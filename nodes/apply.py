"""`ApplyControlNet`: attach a ControlNet and its hint to the conditioning, as the host's own node does, and more."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.conds
import comfy.controlnet
import comfy.model_patcher
import torch
from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker
from torch import Tensor

from ..cn_core.errors import ControlNetKitError
from ..cn_core.files.metadata import ControlNetMetadata
from ..cn_core.image import ResizeMode
from ..cn_core.modulation.masks import extent, prepare
from ..cn_core.modulation.schedule import parse
from ..cn_core.modulation.settings import Modulation
from ..cn_core.modulation.weights import ControlMode
from ..cn_core.modulation.window import Window
from .areas import with_areas
from .boundary import to_pixels
from .cache import Encoder
from .chain import SIDE
from .control import KitControl, as_kit
from .model_patches import PatchControl, apply_patch
from .options import Options, problem

logger = logging.getLogger(__name__)

Conditioning = list[list]
"""The host's CONDITIONING: pairs of text tokens and a dict."""
MODES: dict[str, ControlMode] = {
    "balanced": "balanced",
    "prompt is more important": "prompt",
    "ControlNet is more important": "control",
}
"""What the node shows, in A1111's words."""
INSIDE: dict[str, Any] = dict.fromkeys(("window", "schedule", "mask", "resize", "frame_strengths"), None) | {
    "positive": 1.0,
    "negative": 1.0,
    "resampler": "auto",
    "frames": "cycle",
    "free_after_window": False,
}
"""The settings that networks inside the model have as well, at their defaults."""
RESIZES: dict[str, ResizeMode | None] = {"as ComfyUI": None, "stretch": "stretch", "crop": "crop", "fill": "fill"}


def attach(
    conditionings: list[Conditioning], make: Callable[[], comfy.controlnet.ControlBase], *, marked: bool = False
) -> list[Conditioning]:
    """Each entry with a control from `make`, chained to the control it had; entries that had the same share one.

    The host evaluates positive and negative in one batch only if they hold the very same control object. With `marked`
    each entry carries its side, the first list's being positive.
    """
    made: dict[comfy.controlnet.ControlBase | None, comfy.controlnet.ControlBase] = {}

    def control(previous: comfy.controlnet.ControlBase | None) -> comfy.controlnet.ControlBase:
        if previous not in made:
            made[previous] = make()
            made[previous].set_previous_controlnet(previous)
        return made[previous]

    def entry(conditions: dict, side: int) -> dict:
        mark = {SIDE: comfy.conds.CONDRegular(torch.tensor([1.0 if side == 0 else -1.0]))} if marked else {}
        return {
            **conditions,
            **({"model_conds": {**conditions.get("model_conds", {}), **mark}} if marked else {}),
            "control": control(conditions.get("control")),
            "control_apply_to_uncond": False,
        }

    return [
        [[tokens, entry(conditions, side)] for tokens, conditions in pairs] for side, pairs in enumerate(conditionings)
    ]


NO_MODEL = ExecutionBlocker("ApplyControlNet has no model to pass on: connect its `model` input.")


def with_inputs(
    options: Modulation, effect_mask: Tensor | None, control_mode: str, resize_mode: str, schedule: str
) -> Modulation:
    """The options with what the node's own inputs set; these win where they are not at their defaults."""
    changes = {}
    if effect_mask is not None:
        changes["mask"] = prepare(effect_mask)
    if MODES[control_mode] != "balanced":
        changes["weights"] = replace(options.weights, mode=MODES[control_mode])
    if MODES[control_mode] == "control":
        changes["negative"] = 0.0
    if RESIZES[resize_mode] is not None:
        changes["resize"] = RESIZES[resize_mode]
    if schedule.strip():
        changes["schedule"] = parse(schedule)
    return replace(options, **changes)


def check(control: KitControl, vae: Encoder | None, settings: Modulation) -> None:
    """What can be told before a run: raises ControlNetKitError for a missing VAE and a union ControlNet without a type.

    A mask under which the control never acts is said in the log.
    """
    name = control.source.name
    if control.latent_format is not None and vae is None:
        raise ControlNetKitError(f"{name} takes its hint as a latent: connect the `vae` of ApplyControlNet.")
    if control.source.control_types and "control_type" not in control.extra_args:
        raise ControlNetKitError(
            f"{name} is a union ControlNet, and nothing says what its hint shows. Put Set ControlNet Type before "
            "ApplyControlNet; its type auto leaves it to the network."
        )
    if control.source.inside and replace(settings, **INSIDE) != Modulation():
        raise ControlNetKitError(
            f"{name} is a {control.source.kind} and acts inside the model: it has no weights of layers, control mode, "
            "stacking, calibration, reuse or record. Leave those options at their defaults."
        )
    if settings.calibrate and control.source.layout == "transformer":
        raise ControlNetKitError(
            f"{name} controls a transformer, and calibration measures UNets only. Switch it off and set the strength."
        )
    if settings.mask is not None and extent(settings.mask) == "nowhere":
        logger.warning("ApplyControlNet: no control, the effect mask is black everywhere.")


def as_recommended(control: object, strength: float, start: float, end: float) -> tuple[float, float, float]:
    """Strength and window that the control's file recommends; the given ones where it does not."""
    said = control.description if isinstance(control, KitControl) else ControlNetMetadata()
    return (
        strength if said.strength is None else said.strength,
        start if said.start_percent is None else said.start_percent,
        end if said.end_percent is None else said.end_percent,
    )


def check_numbers(strength: float, window: tuple[float, float]) -> None:
    """Raise ControlNetKitError for numbers that are none."""
    if not all(math.isfinite(number) for number in (strength, *window)):
        raise ControlNetKitError(
            f"ApplyControlNet got strength {strength}, start_percent {window[0]} and end_percent {window[1]}: "
            "give finite numbers."
        )


def patched(
    model: comfy.model_patcher.ModelPatcher | None,
    control: PatchControl,
    image: Tensor,
    vae: Encoder | None,
    strength: float,
    window: tuple[float, float],
    settings: Modulation,
) -> comfy.model_patcher.ModelPatcher:
    """The model with a model patch in it; raises ControlNetKitError for settings that patches do not have."""
    if model is None:
        raise ControlNetKitError(
            f"{control.name} patches the model ({control.kind}): connect `model` of ApplyControlNet, "
            "and sample its `model` output."
        )
    if replace(settings, window=None, mask=None) != Modulation():
        raise ControlNetKitError(
            f"{control.name} patches the model ({control.kind}): of the options it has window and effect mask. "
            "Leave the others at their defaults."
        )
    when = settings.window or Window(start=window[0], end=window[1])
    return apply_patch(model, control, image, vae, strength, when, settings.mask)


class ApplyControlNet(io.ComfyNode):
    """The fields are those of the host's ControlNetApplyAdvanced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="ApplyControlNet",
            display_name="Apply ControlNet (Kit)",
            category="ControlNet Kit",
            description="Makes the picture follow a hint: edges, a pose, a depth map, whatever the ControlNet was "
            "trained on. Connect the outputs to a sampler, or to another Apply ControlNet.",
            search_aliases=["controlnet", "control net", "use controlnet"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input("negative", tooltip="What it should not show."),
                io.ControlNet.Input("control_net", tooltip="From Load ControlNet, ours or the host's."),
                io.Image.Input(
                    "image",
                    tooltip="The hint, as the ControlNet expects it: for a photograph, put a preprocessor in between. "
                    "Cut to the picture's proportions around the centre.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.01, tooltip="How strongly to follow; 0 is off."
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Where in the noise schedule to begin; 0 is pure noise.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Where in the noise schedule to stop; 1 is the finished picture.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Only for ControlNets that take their hint as a latent (SD 3, Flux, Qwen).",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model to be sampled; use the `model` output from here on. A wrong family is then "
                    "told at once, prompts for areas see their own part of the hint, and model patches work.",
                ),
                io.Mask.Input(
                    "effect_mask",
                    optional=True,
                    tooltip="Where the ControlNet acts: white fully, black not at all. One mask, or one per picture.",
                ),
                io.Combo.Input(
                    "control_mode",
                    options=list(MODES),
                    default="balanced",
                    optional=True,
                    tooltip="As in A1111's WebUI. Prompt: weaker in the detail layers. ControlNet: the same, and no "
                    "effect on the negative prompt, which halves the cost.",
                ),
                io.Combo.Input(
                    "resize_mode",
                    options=list(RESIZES),
                    default="as ComfyUI",
                    optional=True,
                    tooltip="How the hint gets the size. Crop cuts it to the proportions as ComfyUI does, with "
                    "a resampler that keeps thin lines and label colours; fill adds borders; stretch distorts.",
                ),
                io.String.Input(
                    "schedule",
                    default="",
                    optional=True,
                    tooltip="Strength over the run, such as 1.0@0, 0.5@30%, 0@step 12; multiplies the strength.",
                ),
                Options.Input("options", optional=True, tooltip="From the ControlNet option nodes."),
                io.Boolean.Input(
                    "recommended",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Strength, start_percent and end_percent as the ControlNet's file recommends them, where "
                    "it does.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Model.Output(display_name="model"),
            ],
        )

    @classmethod
    def validate_inputs(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, schedule: str | None = None
    ) -> bool | str:
        """Read the schedule before anything runs."""
        return problem(parse, schedule)

    @classmethod
    def execute(  # noqa: PLR0913  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        positive: Conditioning,
        negative: Conditioning,
        control_net: comfy.controlnet.ControlBase,
        image: Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
        vae: Encoder | None = None,
        model: comfy.model_patcher.ModelPatcher | None = None,
        effect_mask: Tensor | None = None,
        control_mode: str = "balanced",
        resize_mode: str = "as ComfyUI",
        schedule: str = "",
        options: Modulation | None = None,
        recommended: bool = False,
    ) -> io.NodeOutput:
        """Both conditionings, controlled, and the model; untouched at strength 0."""
        through = model if model is not None else NO_MODEL
        if recommended:
            strength, start_percent, end_percent = as_recommended(control_net, strength, start_percent, end_percent)
        if strength == 0:
            return io.NodeOutput(positive, negative, through)
        settings = with_inputs(options or Modulation(), effect_mask, control_mode, resize_mode, schedule)
        window = (start_percent, end_percent)
        check_numbers(strength, window)
        if isinstance(control_net, PatchControl):
            return io.NodeOutput(
                positive, negative, patched(model, control_net, image, vae, strength, window, settings)
            )
        checked = as_kit(control_net)
        check(checked, vae, settings)
        if model is not None:
            checked.source.check(model.model)
            through = with_areas(model)
        hint = to_pixels(image)

        def make() -> KitControl:
            control = as_kit(control_net)
            control.modulation = settings
            return control.set_cond_hint(hint, strength, window, vae=vae)

        return io.NodeOutput(*attach([positive, negative], make, marked=settings.sided), through)
