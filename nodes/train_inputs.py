"""The inputs of `TrainControlNet`."""

from __future__ import annotations

from comfy_api.latest import io

from ..cn_core.preprocess.registry import PREPROCESSORS
from .train_pairs import Socket

GIVEN = "none"
DEFAULT_CAPTION = "a high-quality, detailed, and professional image"
"""The paper's, for pictures without one."""
TARGETS = ("controlnet", "control_lora", "lllite")
CONTINUE, START_OVER = "continue", "start over"
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def inputs() -> list[io.Input]:
    """Of the node, in their order for good."""
    return [
        io.Model.Input("model", tooltip="The base: SD 1.x, SD 2.x, SDXL, or the embedded one. It is not changed."),
        io.Clip.Input("clip", tooltip="The base's own."),
        io.Vae.Input("vae", tooltip="The base's own."),
        io.Combo.Input(
            "preprocessor",
            options=[GIVEN, *PREPROCESSORS],
            default=GIVEN,
            tooltip="Makes hints from the pictures; none: they are given. Its settings go into `settings`.",
        ),
        io.String.Input(
            "captions",
            default=DEFAULT_CAPTION,
            multiline=True,
            tooltip="One for all pictures, one on a line for each, or a list of texts. With `pairs`: not used.",
        ),
        io.Int.Input(
            "steps", default=1000, min=1, max=1_000_000, tooltip="Of the optimiser. Most ControlNets need 3000 to 7000."
        ),
        io.Float.Input(
            "learning_rate",
            default=1e-5,
            min=0.0,
            max=1.0,
            step=1e-7,
            tooltip="The paper's is 1e-5; a small base or a few pictures take up to 1e-4 and more.",
        ),
        io.Int.Input(
            "batch", default=16, min=1, max=4096, tooltip="Pairs for each step; computed in parts if memory is short."
        ),
        io.Int.Input(
            "resolution", default=512, min=64, max=4096, step=8, tooltip="Side of the training pictures in pixels."
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="Of everything random. Another one is another run.",
        ),
        io.Float.Input(
            "prompt_dropping",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Share of prompts left empty, so that hints are understood without words.",
        ),
        io.Combo.Input("target", options=list(TARGETS), default=TARGETS[0], tooltip="What is trained."),
        io.String.Input(
            "save_name", default="my_controlnet", tooltip="Of the run's folder in output/controlnet/training."
        ),
        *optional_inputs(),
    ]


def optional_inputs() -> list[io.Input]:
    """New ones come last."""
    return [
        io.Image.Input("images", optional=True, tooltip="What shall be drawn: a batch, or a list of batches."),
        io.Image.Input("hints", optional=True, tooltip="One for each image, in the same order."),
        Socket.Input("pairs", optional=True, tooltip="A folder, from Load Training Pairs, instead of `images`."),
        io.Combo.Input(
            "resume",
            options=[CONTINUE, START_OVER],
            default=CONTINUE,
            optional=True,
            tooltip="continue: from the checkpoint of the newest run with the same inputs, if there is one; a finished "
            "one is not trained again. start over: in a new folder; queued again after a cancel, it goes on there.",
        ),
        io.Int.Input(
            "preview_every",
            default=50,
            min=0,
            max=1_000_000,
            optional=True,
            tooltip="Steps between previews and measurements of the loss gap; 0: none.",
        ),
        io.Int.Input(
            "validate_every",
            default=500,
            min=0,
            max=1_000_000,
            optional=True,
            tooltip="Steps between pictures drawn from held-out hints, and between measurements of how they follow "
            "them; 0: none.",
        ),
        io.Combo.Input(
            "precision",
            options=list(PRECISIONS),
            default="auto",
            optional=True,
            advanced=True,
            tooltip="Of the computation; auto: as ComfyUI would on this device. Weights are trained in fp32.",
        ),
        io.String.Input(
            "settings",
            default="",
            multiline=True,
            optional=True,
            advanced=True,
            tooltip="Further settings of `controlnet-kit train`, one a line: optimizer.ema = 0.999",
        ),
        io.Boolean.Input(
            "check_pairs",
            default=True,
            optional=True,
            advanced=True,
            tooltip="Before a new run looks for faults in some pairs: shuffled, inverted or empty hints. What would "
            "harm stops it; the rest is in the report.",
        ),
    ]


def defaults() -> dict[str, object]:
    """Of inputs that a prompt may leave out."""
    found = {one.id: getattr(one, "default", None) for one in optional_inputs()}
    return {name: value for name, value in found.items() if value is not None}
