"""`MergeControlNet`: a ControlNet for another base model, or as a Control-LoRA, or a Control-LoRA as a ControlNet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..cn_core.errors import CheckpointError, ControlNetKitError
from ..cn_core.files.checkpoint import Checkpoint
from ..cn_core.files.control_lora import extract, is_control_lora, merge
from ..cn_core.files.convert import transfer
from ..cn_core.files.detect import detect
from .control import KitControl
from .load import unet_tensors
from .save import Contents, contents
from .sources.control_lora import load_control_lora
from .sources.network import build_network_source

TRANSFER, EXTRACT, MERGE = "transfer to another base", "extract Control-LoRA", "merge Control-LoRA"
OF_THE_BASE = ("controlnet_kit.base_sha256", "controlnet_kit.base_name", "controlnet_kit.fidelity")
"""Fields of the metadata that do not hold for another base."""


def built(tensors: Mapping[str, Tensor], old: Contents, metadata: Mapping[str, str]) -> KitControl:
    """A control from a ControlNet's weights under LDM's keys without prefix."""
    detected = detect(tensors)
    if detected is None:
        raise CheckpointError(f"{old.name} and this base model make no ControlNet. Use a model of its family.")
    control = KitControl(build_network_source(tensors, detected, name=old.name, metadata=metadata))
    control.global_average_pooling = old.pooled
    return control


def transferred(old: Contents, model: ModelPatcher, new_model: ModelPatcher | None) -> tuple[KitControl, str]:
    """The ControlNet plus the difference of the bases."""
    if new_model is None:
        raise ControlNetKitError(f'MergeControlNet: "{TRANSFER}" needs two models, connect the other one to new_model.')
    moved = transfer(old.tensors, unet_tensors(model), unet_tensors(new_model), name=old.name)
    count = sum(not moved[key].equal(tensor) for key, tensor in old.tensors.items())
    metadata = {key: value for key, value in old.metadata.items() if key not in OF_THE_BASE}
    return built(moved, old, metadata), f"{old.name}: {count} of {len(moved)} weights moved with the base model."


def extracted(old: Contents, model: ModelPatcher, rank: int) -> tuple[KitControl, str]:
    """The difference of ControlNet and base, as products of thin matrices."""
    found = extract(old.tensors, unet_tensors(model), rank, name=old.name)
    checkpoint = Checkpoint(path=Path(old.name), tensors=found.tensors, metadata=old.metadata)
    sizes = [sum(t.numel() * t.element_size() for t in tensors.values()) for tensors in (old.tensors, found.tensors)]
    lost = max(found.errors.items(), key=lambda item: item[1], default=("", 0.0))
    report = (
        f"{old.name}: a Control-LoRA of rank {rank}, {sizes[1] / 1e6:.1f} MB instead of {sizes[0] / 1e6:.1f}. "
        f"It loses at most {lost[1]:.0%} of a layer's difference to the base ({lost[0]})."
    )
    return KitControl(load_control_lora(checkpoint)), report


def merged(old: Contents, model: ModelPatcher) -> tuple[KitControl, str]:
    """The ControlNet that a Control-LoRA makes of a base."""
    if not is_control_lora(old.tensors):
        raise ControlNetKitError(f'MergeControlNet: "{MERGE}" needs a Control-LoRA, and {old.name} is a {old.kind}.')
    tensors = merge(old.tensors, unet_tensors(model), name=old.name)
    return built(tensors, old, old.metadata), f"{old.name}: a ControlNet of {len(tensors)} weights."


def changed(
    control: object, mode: str, model: ModelPatcher, new_model: ModelPatcher | None, rank: int
) -> tuple[KitControl, str]:
    """A control with new weights, and what was done. Raises ControlNetKitError when the mode is not for its kind."""
    old = contents(control)
    if mode == MERGE:
        return merged(old, model)
    if old.config is None:
        raise ControlNetKitError(f'MergeControlNet: "{mode}" needs a ControlNet, and {old.name} is a {old.kind}.')
    return extracted(old, model, rank) if mode == EXTRACT else transferred(old, model, new_model)


class MergeControlNet(io.ComfyNode):
    """Weights in, weights out; nothing is written."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="MergeControlNet",
            display_name="Merge ControlNet",
            category="ControlNet Kit",
            description="Adds to a ControlNet the difference of two base models, makes a small Control-LoRA of it, or "
            "a whole ControlNet of a Control-LoRA. Apply the result, or keep it with Save ControlNet.",
            search_aliases=["transfer control", "extract lora", "control lora", "merge controlnet"],
            inputs=[
                io.ControlNet.Input("control_net", tooltip="From Load ControlNet (Kit)."),
                io.Combo.Input(
                    "mode",
                    options=[TRANSFER, EXTRACT, MERGE],
                    default=TRANSFER,
                    tooltip="Transfer: copied weights + new_model - model. Extract: the difference to model, "
                    "compressed. Merge: a Control-LoRA added to model.",
                ),
                io.Model.Input("model", tooltip="The base that the ControlNet was trained on, as a rule plain SD 1.5."),
                io.Model.Input(
                    "new_model", optional=True, tooltip="Transfer only: the base that it should fit from now on."
                ),
                io.Int.Input(
                    "rank",
                    default=128,
                    min=1,
                    max=1024,
                    optional=True,
                    tooltip="Extract only: size of the Control-LoRA; 128 is a tenth of a ControlNet for SDXL.",
                ),
            ],
            outputs=[io.ControlNet.Output(display_name="control_net"), io.String.Output(display_name="report")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        control_net: object,
        mode: str,
        model: ModelPatcher,
        new_model: ModelPatcher | None = None,
        rank: int = 128,
    ) -> io.NodeOutput:
        """A new control; the one that came in stays as it is."""
        return io.NodeOutput(*changed(control_net, mode, model, new_model, rank))
