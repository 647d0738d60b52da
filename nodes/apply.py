"""`ApplyControlNet`: attach a ControlNet and its hint to the conditioning, as the host's own node does."""

from __future__ import annotations

import logging
from collections.abc import Callable

from comfy.controlnet import ControlBase, ControlNet
from comfy_api.latest import io
from torch import Tensor

from ..cn_core.errors import ControlNetKitError
from .boundary import to_pixels

logger = logging.getLogger(__name__)

Conditioning = list[list]
"""The host's CONDITIONING: pairs of text tokens and a dict."""


def attach(conditionings: list[Conditioning], make: Callable[[], ControlBase]) -> list[Conditioning]:
    """Each entry with a control from `make`, chained to the control it had; entries that had the same share one.

    The host evaluates positive and negative in one batch only if they hold the very same control object.
    """
    made: dict[ControlBase | None, ControlBase] = {}

    def control(previous: ControlBase | None) -> ControlBase:
        if previous not in made:
            made[previous] = make()
            made[previous].set_previous_controlnet(previous)
        return made[previous]

    return [
        [[tokens, {**d, "control": control(d.get("control")), "control_apply_to_uncond": False}] for tokens, d in pairs]
        for pairs in conditionings
    ]


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
                    "vae", optional=True, tooltip="Only for ControlNets that take their hint as a latent (SD 3, Flux)."
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")],
        )

    @classmethod
    def execute(  # noqa: PLR0913  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        positive: Conditioning,
        negative: Conditioning,
        control_net: ControlNet,
        image: Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
        vae: object | None = None,
    ) -> io.NodeOutput:
        """Both conditionings, controlled; untouched at strength 0."""
        if strength == 0:
            return io.NodeOutput(positive, negative)
        hint, window = to_pixels(image), (start_percent, end_percent)
        if control_net.latent_format is not None and vae is None:
            raise ControlNetKitError(
                "This ControlNet takes its hint as a latent: connect the `vae` of ApplyControlNet."
            )
        if start_percent > end_percent:
            logger.warning("ApplyControlNet: no control, the window from %g to %g is empty.", *window)
        controls = attach(
            [positive, negative], lambda: control_net.copy().set_cond_hint(hint, strength, window, vae=vae)
        )
        return io.NodeOutput(*controls)
