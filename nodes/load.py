"""`LoadControlNet`: a file of any family -> CONTROL_NET."""

from __future__ import annotations

import logging
from pathlib import Path

import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..cn_core.errors import CheckpointError
from ..cn_core.files.checkpoint import Checkpoint, check_strictly, controlnet_tensors, read
from ..cn_core.files.detect import Detected, describe_foreign, detect
from ..cn_core.networks.backend import Backend
from ..cn_core.networks.controlnet import ControlNet
from .control import KitControl, LoadedControlNet
from .host import host_backend

logger = logging.getLogger(__name__)

POOLED_SUFFIXES = ("_shuffle", "_shuffle_fp16")
"""Ends of the file names of ControlNets whose residuals are averaged over the picture; the host goes by them too."""
NEIGHBOURS = {
    "a LoRA": "models/loras and use a LoRA loader",
    "a VAE": "models/vae and use Load VAE",
    "a full checkpoint": "models/checkpoints and use Load Checkpoint",
    "a diffusion model": "models/diffusion_models and use Load Diffusion Model",
    "a UNet": "models/diffusion_models and use Load Diffusion Model",
    "a text encoder": "models/text_encoders and use Load CLIP",
    "a textual inversion": "models/embeddings and name it in the prompt",
}
"""Files that are no ControlNets of any kind: where each belongs."""


def choose_dtypes(tensors: dict[str, Tensor], detected: Detected) -> tuple[torch.dtype, torch.dtype | None]:
    """(of the stored weights, of the computation or None for the same), by the host's rules for ControlNets."""
    supported = comfy.supported_models_base.BASE.supported_inference_dtypes
    if detected.layout == "diffusers":
        supported = [comfy.model_management.unet_dtype()]
    weight_dtype = comfy.utils.weight_dtype(tensors)
    dtype = comfy.model_management.unet_dtype(model_params=-1, supported_dtypes=supported, weight_dtype=weight_dtype)
    return dtype, comfy.model_management.unet_manual_cast(dtype, comfy.model_management.get_torch_device())


def unet_tensors(model: comfy.model_patcher.ModelPatcher) -> dict[str, Tensor]:
    """The weights of a MODEL's UNet by their bare LDM names."""
    comfy.model_management.load_models_gpu([model])
    prefix = "diffusion_model."
    tensors = model.model_state_dict().items()
    return {key.removeprefix(prefix): tensor for key, tensor in tensors if key.startswith(prefix)}


def build(checkpoint: Checkpoint, detected: Detected, model: comfy.model_patcher.ModelPatcher | None) -> KitControl:
    """Our network with the file's weights in it, handed to the host's memory management."""
    name, offload_device = checkpoint.path.name, comfy.model_management.unet_offload_device()
    base = unet_tensors(model) if detected.difference and model is not None else None
    tensors = controlnet_tensors(checkpoint.tensors, detected, base, name=name)
    # Against an empty twin: under dynamic VRAM the host's layers have no weights to compare with before loading.
    check_strictly(network(detected, Backend(device="meta")), tensors, name=name)
    dtype, compute_dtype = choose_dtypes(checkpoint.tensors, detected)
    operations = comfy.ops.pick_operations(dtype, compute_dtype)
    # As the host does: attention in float32 for SD 2.x, but not when its file is in the diffusers layout.
    precision = torch.float32 if detected.family == "SD 2.x" and detected.layout == "ldm" else None
    control_net = network(detected, host_backend(operations, dtype, offload_device, precision=precision))
    comfy.model_management.archive_model_dtypes(control_net)
    patcher = comfy.model_patcher.CoreModelPatcher(
        control_net, load_device=comfy.model_management.get_torch_device(), offload_device=offload_device
    )
    control_net.load_state_dict(tensors, strict=False, assign=patcher.is_dynamic())
    loaded = LoadedControlNet(
        name=name, family=detected.family, network=control_net, patcher=patcher, compute_dtype=compute_dtype or dtype
    )
    return KitControl(loaded, global_average_pooling=checkpoint.path.stem.endswith(POOLED_SUFFIXES))


def network(detected: Detected, backend: Backend) -> ControlNet:
    """A ControlNet of the file's shape, its weights not yet loaded."""
    return ControlNet(
        detected.config,
        backend,
        hint_channels=detected.hint_channels,
        hint_encoder_kind=detected.hint_encoder_kind,
    )


def load_with_host(
    checkpoint: Checkpoint, model: comfy.model_patcher.ModelPatcher | None
) -> comfy.controlnet.ControlBase:
    """Families that cn_core does not run; raises CheckpointError for files that the host cannot load either."""
    name, kind = checkpoint.path.name, describe_foreign(checkpoint.tensors)
    if kind in NEIGHBOURS:
        raise CheckpointError(f"{name} is no ControlNet, it looks like {kind}. Move it to {NEIGHBOURS[kind]}.")
    logger.info("%s is not an SD 1.x, SD 2.x or SDXL ControlNet: ComfyUI's own loader takes it.", name)
    try:
        control = comfy.controlnet.load_controlnet(str(checkpoint.path), model)
    except (LookupError, RuntimeError) as error:
        raise CheckpointError(f"{name} looks like {kind}, and ComfyUI's loader fails on it: {error}") from error
    if control is None:
        raise CheckpointError(
            f"{name} is no ControlNet that this pack or ComfyUI can load, it looks like {kind}. "
            "Choose another file; model patches belong in models/model_patches."
        )
    return control


def load(path: Path, model: comfy.model_patcher.ModelPatcher | None = None) -> comfy.controlnet.ControlBase:
    """A control from any ControlNet file; `model` is the base of files that hold differences to it."""
    checkpoint = read(path)
    detected = detect(checkpoint.tensors)
    return load_with_host(checkpoint, model) if detected is None else build(checkpoint, detected, model)


class LoadControlNet(io.ComfyNode):
    """From the folder models/controlnet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="LoadControlNet",
            display_name="Load ControlNet (Kit)",
            category="ControlNet Kit",
            description="Loads a ControlNet of any family: those of SD 1.x, SD 2.x and SDXL with this pack's network, "
            "all others with ComfyUI's own loader.",
            search_aliases=["controlnet", "control net", "controlnet loader"],
            inputs=[
                io.Combo.Input(
                    "control_net_name",
                    options=folder_paths.get_filename_list("controlnet"),
                    tooltip="A file in models/controlnet.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only for files that hold the difference to a base model: that base model.",
                ),
            ],
            outputs=[io.ControlNet.Output(display_name="control_net")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, control_net_name: str, model: comfy.model_patcher.ModelPatcher | None = None
    ) -> io.NodeOutput:
        """Names from API prompts are untrusted: the host looks them up in its folders."""
        return io.NodeOutput(load(Path(folder_paths.get_full_path_or_raise("controlnet", control_net_name)), model))
