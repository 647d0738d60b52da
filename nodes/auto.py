"""`AutoPreprocessor`: the hint for a ControlNet, made as its file, its type or its name tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.controlnet
from comfy_api.latest import io, ui
from torch import Tensor

from ..cn_core.errors import ControlNetKitError
from ..cn_core.files.metadata import RULES
from ..cn_core.image import pixel_perfect_resolution
from ..cn_core.preprocess.auto import Choice, Evidence, choose, named, names
from ..cn_core.preprocess.lint_map import is_map
from ..cn_core.preprocess.map_kinds import kind_of
from ..cn_core.preprocess.preprocessor import Preprocessor
from .boundary import to_image, to_pixels
from .control import KitControl
from .fit import picture_size
from .forms import resolution
from .learned import pictures
from .model_patches import PatchControl
from .shelf import Shelf, weights_folders

AUTO = "auto"
KEEP, PROCESS = "use as is", "process anyway"
Loaded = comfy.controlnet.ControlBase | PatchControl
"""What travels on CONTROL_NET."""


def control_input(tooltip: str, *, optional: bool = False) -> io.Input:
    """Of any kind."""
    return io.ControlNet.Input("control_net", optional=optional, tooltip=tooltip)


def preprocessor_input() -> io.Input:
    """All of the tables, or what the ControlNet tells."""
    return io.Combo.Input(
        "preprocessor",
        options=[AUTO, *names()],
        default=AUTO,
        tooltip="auto: what the ControlNet was trained with, by its file's metadata, its type or its name.",
    )


def settings_input() -> io.Input:
    """Such as a trained file records them."""
    return io.String.Input(
        "settings",
        default="",
        optional=True,
        advanced=True,
        tooltip='As JSON, {"low_threshold": 50}: instead of those recorded with the ControlNet, and of the defaults.',
    )


def evidence_of(control_net: Loaded) -> Evidence:
    """What a loaded control tells of itself; the host's own controls tell nothing."""
    if isinstance(control_net, PatchControl):
        return Evidence(name=control_net.name)
    if not isinstance(control_net, KitControl):
        return Evidence(name="the ControlNet (loaded by another node than Load ControlNet (Kit))")
    source, known = control_net.source, control_net.source.control_types
    numbers = [number for number in control_net.control_types if number < len(known)]
    return Evidence(
        name=source.name,
        metadata=control_net.description,
        control_type=known[numbers[0]] if numbers else None,
        is_union=bool(known),
    )


def parsed(settings: str) -> Mapping[str, object]:
    """The settings of a text; raises ControlNetKitError for one that has none."""
    found = RULES["preprocessor_params"].parse(settings) if settings.strip() else {}
    if found is None:
        raise ControlNetKitError(
            f'The settings are {settings!r:.80}, expected JSON such as {{"low_threshold": 50}}: '
            f"{RULES['preprocessor_params'].wants}."
        )
    return found


def choice_of(preprocessor: str, control_net: Loaded | None, settings: str) -> Choice:
    """What to run; raises ControlNetKitError where that cannot be told or cannot run."""
    if preprocessor != AUTO:
        return named(preprocessor, weights_folders(), parsed(settings))
    if control_net is None:
        raise ControlNetKitError("The preprocessor is auto: connect a `control_net`, or choose a preprocessor.")
    return choose(evidence_of(control_net), weights_folders(), parsed(settings))


def hint_of(choice: Choice, shelf: Shelf, image: Tensor, resolution: int) -> Tensor:
    """IMAGE -> B 3 h w by the chosen preprocessor; the picture itself where there is none."""
    if choice.entry is None or choice.settings is None:
        return pictures(image, resolution)
    if isinstance(choice.entry, Preprocessor):
        return choice.entry(to_pixels(image), choice.settings, resolution=resolution)
    return shelf.run(choice.entry, pictures(image, resolution), choice.settings)


def is_finished(choice: Choice, image: Tensor) -> bool:
    """Whether all pictures of IMAGE look like maps of the kind that the preprocessor makes."""
    frames = to_pixels(image).float().cpu().clamp(0, 1).movedim(1, -1).contiguous().numpy()
    return choice.entry is not None and all(is_map(kind_of(choice.entry.name), frame) for frame in frames)


def auto_node(shelf: Shelf) -> type[io.ComfyNode]:
    """The node's class; the shelf is that of all learned preprocessors."""

    class AutoPreprocessor(io.ComfyNode):
        """The hint that fits."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            """What the host shows."""
            return io.Schema(
                node_id="AutoPreprocessor",
                display_name="Auto Preprocessor",
                category="ControlNet Kit",
                description="Makes the hint that a ControlNet takes: its file's metadata, the type of a union "
                "ControlNet or its name tell the preprocessor, and the metadata the settings.",
                search_aliases=["AIO_Preprocessor", "auto", "which preprocessor", "aio"],
                inputs=[
                    io.Image.Input("image", tooltip="A photograph, a drawing, or a batch of them."),
                    control_input("The ControlNet that the hint is for, from Load ControlNet (Kit)."),
                    io.Combo.Input(
                        "when_already_a_map",
                        options=[KEEP, PROCESS],
                        default=KEEP,
                        tooltip="What to do with pictures that look like finished hints of the kind already.",
                    ),
                    resolution(),
                    io.Latent.Input(
                        "latent",
                        optional=True,
                        tooltip="What will be sampled: with resolution 0 the hint is made at the size that it needs.",
                    ),
                    settings_input(),
                ],
                outputs=[io.Image.Output(display_name="hint"), io.String.Output(display_name="text")],
            )

        @classmethod
        def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
            cls,
            image: Tensor,
            control_net: Loaded,
            when_already_a_map: str,
            resolution: int,
            latent: dict[str, Any] | None = None,
            settings: str = "",
        ) -> io.NodeOutput:
            """The hint, and what was chosen and why."""
            choice = choice_of(AUTO, control_net, settings)
            if when_already_a_map == KEEP and is_finished(choice, image):
                text = f"{choice.text} The image looks like such a hint already, and was left as it is."
                return io.NodeOutput(to_image(to_pixels(image)), text, ui=ui.PreviewText(text))
            if latent is not None and not resolution:
                height, width = image.shape[1:3]
                resolution = pixel_perfect_resolution((height, width), picture_size(latent), "crop")
            hint = hint_of(choice, shelf, image, resolution)
            return io.NodeOutput(to_image(hint), choice.text, ui=ui.PreviewText(choice.text))

    return AutoPreprocessor
