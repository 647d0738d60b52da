"""`PreflightControlNet`: what a run would do, said before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import comfy.samplers
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..cn_core.errors import ControlNetKitError
from ..cn_core.modulation.masks import extent
from ..cn_core.modulation.run import Run
from ..cn_core.modulation.schedule import resolve, strength_at
from ..cn_core.modulation.window import active_steps
from ..cn_core.preprocess.lint_map import INVERTED, is_inverted
from ..cn_core.preprocess.lint_size import cut_off
from .boundary import to_image
from .control import KitControl
from .effect_map import controls
from .fit import picture_size
from .hints import resized


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be sampled."""

    model: comfy.model_patcher.ModelPatcher
    run: Run
    size: tuple[int, int]
    """Height and width of the picture."""


def sampling(model: comfy.model_patcher.ModelPatcher) -> Any:
    """The noise schedule (the host's ModelSampling), with what nodes have set on the MODEL."""
    return model.get_model_object("model_sampling")


def planned_sigmas(
    model: comfy.model_patcher.ModelPatcher, scheduler: str, steps: int, denoise: float
) -> tuple[float, ...]:
    """The sigmas of the host's KSampler."""
    total = steps if denoise > 0.9999 else int(steps / denoise)
    sigmas = comfy.samplers.calculate_sigmas(sampling(model), scheduler, total)
    return tuple(sigmas[-(steps + 1) :].tolist())


def acting(control: KitControl, run: Run) -> str:
    """Steps and strengths: "steps 1 to 10 of 20, strength 1 to 0.5"."""
    steps = active_steps(control.window, run)
    if not steps:
        return f"none of the {run.steps} steps"
    schedule = control.modulation.schedule
    knots = () if schedule is None else resolve(schedule, run)
    strengths = [
        control.strength * (strength_at(knots, step, schedule.interpolation) if schedule else 1.0) for step in steps
    ]
    reach = f"{strengths[0]:g}" if len(set(strengths)) == 1 else f"{strengths[0]:g} to {strengths[-1]:g}"
    frames = ", times the strengths of single pictures" if control.modulation.frame_strengths else ""
    return f"steps {steps[0]} to {steps[-1]} (of 0 to {run.steps - 1}), strength {reach}{frames}"


def warnings(control: KitControl, plan: Plan) -> Iterator[str]:
    """What will go wrong, or is likely not meant."""
    try:
        control.source.check(plan.model.model)
    except ControlNetKitError as error:
        yield str(error)
    if not active_steps(control.window, plan.run):
        window = control.window
        yield (
            f"No control: none of the {plan.run.steps} steps lies in the window, {window.unit} {window.start:g} to "
            f"{window.end:g}. Widen it, or give it in steps (ControlNet Window)."
        )
    if control.latent_format is not None and control.vae is None:
        yield "The hint has to be encoded: connect the `vae` of Apply ControlNet."
    if control.modulation.mask is not None and extent(control.modulation.mask) == "nowhere":
        yield "No control: the effect mask is black everywhere."
    if control.source.control_types and not control.control_types:
        yield "A union ControlNet without a type: put Set ControlNet Type before Apply ControlNet."
    said = control.description
    if said.strength not in (None, control.strength):
        yield f"The file recommends strength {said.strength:g}: set it, or `recommended` of Apply ControlNet."
    if said.needs and not any("output_blocks" in key for key in plan.model.patches):
        yield said.needs
    yield from hint_warnings(control, plan)


def hint_warnings(control: KitControl, plan: Plan) -> Iterator[str]:
    """About the hint's colours and proportions."""
    hint = control.cond_hint_original
    if is_inverted(hint[0].movedim(0, -1).float().cpu().numpy()):
        yield f"The hint {INVERTED}"
    if not hint.any():
        yield "The hint is black everywhere."
    lost = cut_off((hint.shape[2], hint.shape[3]), plan.size)
    if control.modulation.resize in (None, "crop") and lost is not None:
        yield f"The hint {lost}"


def described(control: KitControl, plan: Plan) -> str:
    """The report on one control."""
    source, hint = control.source, control.cond_hint_original
    found = list(warnings(control, plan))
    try:
        acts = acting(control, plan.run)
    except ControlNetKitError as error:
        acts, found = "no step that can be told", [*found, str(error)]
    memory = sum(patcher.model_size() for patcher in source.models()) + source.memory(
        plan.model.model.get_dtype_inference()
    )
    lines = [
        f"{source.name}: {source.kind}, {source.family}",
        f"  acts in {acts}",
        f"  {hint.shape[0]} hint(s) of {hint.shape[3]}x{hint.shape[2]} for a picture of {plan.size[1]}x{plan.size[0]}",
        f"  {memory / 2**20:.1f} MiB of memory besides the model's",
        *(f"  WARNING: {warning}" for warning in found),
    ]
    return "\n".join(lines)


def final_hint(control: KitControl, plan: Plan) -> Tensor:
    """The hints as the network will see them, at the size of the picture: F 3 H W."""
    return resized(control.cond_hint_original, plan.size, control.modulation, control.upscale_algorithm)


class PreflightControlNet(io.ComfyNode):
    """The report, without sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="PreflightControlNet",
            display_name="Preflight ControlNet",
            category="ControlNet Kit",
            description="Says before sampling what the ControlNets of a prompt will do: do they fit the model, in "
            "which steps do they act, how does the hint look in the end, what memory do they take, what is suspicious.",
            search_aliases=["check controlnet", "debug controlnet", "dry run"],
            inputs=[
                io.Model.Input("model", tooltip="The model that will be sampled."),
                io.Conditioning.Input("positive", tooltip="From Apply ControlNet."),
                io.Latent.Input("latent", tooltip="What will be sampled."),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="As in the sampler."),
                io.Combo.Input(
                    "scheduler", options=comfy.samplers.SCHEDULER_NAMES, default="normal", tooltip="As in the sampler."
                ),
                io.Float.Input("denoise", default=1.0, min=0.01, max=1.0, step=0.01, tooltip="As in the sampler."),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="Custom samplers: instead of steps, scheduler and denoise.",
                ),
            ],
            outputs=[io.String.Output(display_name="report"), io.Image.Output(display_name="hint")],
            is_output_node=True,
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        model: comfy.model_patcher.ModelPatcher,
        positive: list[list],
        latent: dict[str, Any],
        steps: int,
        scheduler: str,
        denoise: float,
        sigmas: Tensor | None = None,
    ) -> io.NodeOutput:
        """Text and final hints of all controls of the prompt, the last one of the chain first."""
        ours = [control for control in controls(positive) if isinstance(control, KitControl)]
        if not ours:
            raise ControlNetKitError("PreflightControlNet: `positive` has no control of this pack. Put it after Apply.")
        listed = planned_sigmas(model, scheduler, steps, denoise) if sigmas is None else tuple(sigmas.tolist())
        run = Run(sigmas=listed, percent_to_sigma=sampling(model).percent_to_sigma)
        plan = Plan(model=model, run=run, size=picture_size(latent))
        report = "\n\n".join(described(control, plan) for control in ours)
        hints = torch.cat([final_hint(control, plan) for control in ours])
        return io.NodeOutput(report, to_image(hints), ui=ui.PreviewText(report))
