"""`TrainControlNet`: pictures in, a CONTROL_NET out, trained by the very loop of `controlnet-kit train`."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch
from comfy_api.latest import io, ui

from ..cn_core.errors import ControlNetKitError
from ..cn_core.preprocess.registry import PREPROCESSORS
from .train_inputs import GIVEN, START_OVER, defaults, inputs
from .train_pairs import captions_for, lines, of_graph

if TYPE_CHECKING:
    from .train_settings import Wanted

# The trainer is imported where it is used: the host's start-up does not pay for it.


def only(inputs: dict[str, Any]) -> dict[str, Any]:
    """The values of inputs that are lists of one, since this node takes lists."""
    return {name: value[0] if isinstance(value, list | tuple) else value for name, value in inputs.items()}


def wanted(values: dict[str, Any], *, given: bool) -> Wanted:
    """The settings of the widgets; `given` is whether hints are."""
    from .train_settings import SAVE_EVERY, Wanted, precision, readings

    chosen = values["precision"]
    device = comfy.model_management.get_torch_device()
    return Wanted(
        tables={
            "data": {"hints": "given" if given else values["preprocessor"], "resolution": values["resolution"]},
            "target": {"kind": values["target"]},
            "objective": {"prompt_dropping": values["prompt_dropping"]},
            "optimizer": {"learning_rate": values["learning_rate"]},
            "hardware": {"precision": precision(device) if chosen == "auto" else chosen},
            "validation": {"every": values["validate_every"], "probe_every": values["preview_every"]},
            "run": {
                **{key: values[key] for key in ("steps", "batch", "seed")},
                "save_every": SAVE_EVERY,
                "log_every": readings(values["steps"]),
            },
        },
        more=values["settings"],
        name=values["save_name"],
        start_over=values["resume"] == START_OVER,
        check_pairs=values["check_pairs"],
    )


def data_of(pairs: Any) -> dict[str, Any]:
    """What a folder adds to the settings."""
    return {key: getattr(pairs.config, key) for key in ("path", "format", "captions")}


def check_installed() -> None:
    """Raise ControlNetKitError for a package that training needs and the host does not bring."""
    if importlib.util.find_spec("accelerate") is None:
        raise ControlNetKitError(
            "Training needs the package accelerate, which is not installed in ComfyUI's Python. "
            "Install it there with: pip install accelerate"
        )


def check_data(*, images: bool, hints: bool, pairs: bool, preprocessor: str) -> None:
    """Raise ControlNetKitError unless it is clear where pictures and hints come from."""
    if images == pairs:
        got = "both are connected" if images else "neither is connected"
        raise ControlNetKitError(f"TrainControlNet takes either `images` or `pairs`, and {got}.")
    if pairs and hints:
        raise ControlNetKitError("`pairs` bring their own hints: disconnect `hints`, or connect `images`.")
    if preprocessor not in (GIVEN, *PREPROCESSORS):
        raise ControlNetKitError(f"There is no preprocessor {preprocessor!r:.40}; choose one of the list.")
    if images and hints == (preprocessor != GIVEN):
        got = "there are both" if hints else "there is neither"
        raise ControlNetKitError(
            f"Hints come from `hints` or are made by a `preprocessor`, and {got}. Set one of them."
        )


class TrainControlNet(io.ComfyNode):
    """Resumes where it was cancelled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="TrainControlNet",
            display_name="Train ControlNet",
            category="ControlNet Kit/training",
            description="Trains a new ControlNet on pairs of pictures and hints. The result can be applied at once and "
            "saved with Save ControlNet. Cancel saves; queueing again goes on.",
            search_aliases=["fine-tune controlnet", "controlnet trainer", "learn", "train lora"],
            is_input_list=True,
            has_intermediate_output=True,
            hidden=[io.Hidden.unique_id],
            inputs=inputs(),
            outputs=[
                io.ControlNet.Output(display_name="control_net"),
                io.String.Output(display_name="report"),
                io.Image.Output(display_name="plot"),
            ],
        )

    @classmethod
    def validate_inputs(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        preprocessor: Sequence[str],
        captions: Sequence[str | None],
        save_name: Sequence[str | None],
        images: Sequence[Any] = (),
        hints: Sequence[Any] = (),
        pairs: Sequence[Any] = (),
        settings: Sequence[str | None] = ("",),
    ) -> bool | str:
        """What can be told before anything runs. Links are there, with None for their values."""
        try:
            check_installed()
            check_data(images=bool(images), hints=bool(hints), pairs=bool(pairs), preprocessor=preprocessor[0])
            if images and None not in captions and not any(lines([text for text in captions if text])):
                captions_for([""], 1)
            check_texts(save_name[0], settings[0])
        except ControlNetKitError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """The trained network, what there is to say, and its curves."""
        images, hints, captions = (values.pop(name, None) for name in ("images", "hints", "captions"))
        # The host's graph runs in inference mode, whose tensors cannot be trained on.
        with torch.inference_mode(False), torch.enable_grad():
            try:
                return run(cls.hidden.unique_id, images or (), hints or (), captions or (), only(values))
            finally:
                gc.collect()
                comfy.model_management.soft_empty_cache()


def check_texts(name: str | None, settings: str | None) -> None:
    """Raise ControlNetKitError for a name or settings that cannot be; None is a link, not known yet."""
    from .train_settings import check_name, merged

    if name is not None:
        check_name(name)
    if settings is not None:
        merged({}, settings)


def run(
    node_id: str | None, images: Sequence[Any], hints: Sequence[Any], captions: Sequence[str], values: dict[str, Any]
) -> io.NodeOutput:
    """Train."""
    check_installed()
    from .load import Request, load
    from .train_base import open_base
    from .train_live import Live
    from .train_report import plot, report
    from .train_run import train
    from .train_settings import check_name

    values = {**defaults(), **values}
    folder = values.get("pairs")
    check_data(images=bool(images), hints=bool(hints), pairs=folder is not None, preprocessor=values["preprocessor"])
    check_name(values["save_name"])
    pairs = of_graph(images, hints, captions) if folder is None else None
    asked = wanted(values, given=values["preprocessor"] == GIVEN)
    if folder is not None:
        asked.tables["data"].update(data_of(folder))
    live = Live(node_id, values["steps"])
    model = values["model"]
    trained = train(asked, open_base(model, values["clip"], values["vae"]), pairs, live.tell, live.progress)
    picture = plot(trained.history)
    control = load(trained.path, Request(model=model))
    return io.NodeOutput(control, report(trained), picture, ui=ui.PreviewImage(picture))
