"""`LoadControlNet`: a file of any family -> CONTROL_NET."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..cn_core.errors import CheckpointError
from ..cn_core.files.checkpoint import Checkpoint, controlnet_tensors, read
from ..cn_core.files.conditions import is_pooled
from ..cn_core.files.control_lora import is_control_lora
from ..cn_core.files.ctrlora import is_ctrlora, is_ctrlora_base
from ..cn_core.files.detect import Detected, describe_foreign, detect
from ..cn_core.files.lllite import is_lllite
from ..cn_core.files.t2i_adapter import detect_t2i_adapter
from .control import KitControl
from .model_patches import PatchControl, load_patch, patch_kind
from .sources.control_lora import load_control_lora
from .sources.ctrlora import CtrLoRASource, load_ctrlora
from .sources.host import HostSource, load_host_control
from .sources.lllite import load_lllite
from .sources.network import build_network_source
from .sources.source import ControlSource
from .sources.t2i_adapter import load_t2i_adapter

logger = logging.getLogger(__name__)

FOLDERS = ("controlnet", "model_patches")
NEIGHBOURS = {
    "a LoRA": "models/loras and use a LoRA loader",
    "a VAE": "models/vae and use Load VAE",
    "a full checkpoint": "models/checkpoints and use Load Checkpoint",
    "a diffusion model": "models/diffusion_models and use Load Diffusion Model",
    "a UNet": "models/diffusion_models and use Load Diffusion Model",
    "a text encoder": "models/text_encoders and use Load CLIP",
    "a textual inversion": "models/embeddings and name it in the prompt",
    "a T2I style adapter": "models/style_models and use Load Style Model",
}
"""Files that are no ControlNets of any kind: where each belongs."""
DTYPES = {
    "auto": None,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
"""What the weights may be kept in; auto: as ComfyUI would."""


def unet_tensors(model: comfy.model_patcher.ModelPatcher) -> dict[str, Tensor]:
    """The weights of a MODEL's UNet by their bare LDM names."""
    comfy.model_management.load_models_gpu([model])
    prefix = "diffusion_model."
    tensors = model.model_state_dict().items()
    return {key.removeprefix(prefix): tensor for key, tensor in tensors if key.startswith(prefix)}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks for besides the file."""

    model: comfy.model_patcher.ModelPatcher | None = None
    """The base of files that hold differences to it."""
    base: ControlSource | None = None
    """What a CtrLoRA builds on."""
    dtype: torch.dtype | None = None
    """Of the weights; None: as the host would."""


def load_network(checkpoint: Checkpoint, detected: Detected, request: Request) -> ControlSource:
    """A ControlNet that cn_core runs, of any layout."""
    name = checkpoint.path.name
    base = unet_tensors(request.model) if detected.difference and request.model is not None else None
    tensors = controlnet_tensors(checkpoint.tensors, detected, base, name=name)
    return build_network_source(tensors, detected, name=name, metadata=checkpoint.metadata, dtype=request.dtype)


def load_with_host(checkpoint: Checkpoint, request: Request) -> ControlSource:
    """Families that cn_core does not run; raises CheckpointError for files that the host cannot load either."""
    name, kind = checkpoint.path.name, describe_foreign(checkpoint.tensors)
    if kind in NEIGHBOURS:
        raise CheckpointError(f"{name} is no ControlNet, it looks like {kind}. Move it to {NEIGHBOURS[kind]}.")
    logger.info("%s is of a family that ComfyUI's own loader takes.", name)
    try:
        control = load_host_control(checkpoint.path, request.model, request.dtype)
    except (LookupError, RuntimeError, AttributeError, TypeError) as error:  # whatever missing keys lead to
        raise CheckpointError(f"{name} looks like {kind}, and ComfyUI's loader fails on it: {error}") from error
    if control is None:
        raise CheckpointError(
            f"{name} is no ControlNet that this pack or ComfyUI can load, it looks like {kind}. Choose another file."
        )
    return HostSource(control, name=name)


def source_of(checkpoint: Checkpoint, request: Request) -> ControlSource:
    """The network in a file."""
    if (detected := detect(checkpoint.tensors)) is not None:
        return load_network(checkpoint, detected, request)
    for known, load in OTHERS:
        if known(checkpoint.tensors):
            return load(checkpoint, request)
    return load_with_host(checkpoint, request)


def is_of_ctrlora(tensors: Mapping[str, Tensor]) -> bool:
    """A CtrLoRA, or the base of one."""
    return is_ctrlora(tensors) or is_ctrlora_base(tensors)


OTHERS: tuple[tuple[Callable[[Mapping[str, Tensor]], object], Callable[[Checkpoint, Request], ControlSource]], ...] = (
    (is_control_lora, lambda file, request: load_control_lora(file, dtype=request.dtype)),
    (is_of_ctrlora, lambda file, request: load_ctrlora(file, base=request.base, dtype=request.dtype)),
    (is_lllite, lambda file, request: load_lllite(file, dtype=request.dtype)),
    (detect_t2i_adapter, lambda file, request: load_t2i_adapter(file, dtype=request.dtype)),
)
"""Networks of cn_core that are no ControlNets of the plain kind: (whose file it is, what loads it)."""


def load(path: Path, request: Request) -> KitControl | PatchControl:
    """A control from any ControlNet file."""
    checkpoint = read(path)
    if (kind := patch_kind(checkpoint.tensors)) is not None:
        return load_patch(path, kind)
    control = KitControl(source_of(checkpoint, request))
    if isinstance(control.source, HostSource):
        control.source.control.copy_to(control)
    if isinstance(control.source, CtrLoRASource):
        # so that the host's Apply nodes hand over their VAE
        control.latent_format = comfy.latent_formats.SD15()  # pyright: ignore[reportAttributeAccessIssue]
    control.global_average_pooling = is_pooled(path.stem)
    return control


def names() -> list[str]:
    """What can be loaded: the files of both folders, by their names."""
    return sorted({name for folder in FOLDERS for name in folder_paths.get_filename_list(folder)})


def located(name: str) -> Path:
    """The file of that name; raises FileNotFoundError as the host does. Names from API prompts are untrusted."""
    found = next(filter(None, (folder_paths.get_full_path(folder, name) for folder in FOLDERS)), None)
    return Path(found or folder_paths.get_full_path_or_raise(FOLDERS[0], name))


class LoadControlNet(io.ComfyNode):
    """From the folders models/controlnet and models/model_patches."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="LoadControlNet",
            display_name="Load ControlNet (Kit)",
            category="ControlNet Kit",
            description="Loads a ControlNet of any family and kind: those of SD 1.x, SD 2.x and SDXL with this pack's "
            "networks, all others with ComfyUI's own loader.",
            search_aliases=["controlnet", "control net", "controlnet loader"],
            inputs=[
                io.Combo.Input(
                    "control_net_name",
                    options=names(),
                    tooltip="A file in models/controlnet or models/model_patches.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only for files that hold the difference to a base model: that base model.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="How to keep the weights in memory; fp8 halves fp16, at some cost in quality.",
                ),
                io.ControlNet.Input(
                    "base", optional=True, tooltip="Only for CtrLoRA files: the ControlNet that they build on, loaded."
                ),
            ],
            outputs=[io.ControlNet.Output(display_name="control_net")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        control_net_name: str,
        model: comfy.model_patcher.ModelPatcher | None = None,
        dtype: str = "auto",
        base: KitControl | None = None,
    ) -> io.NodeOutput:
        """Whatever the file holds."""
        request = Request(model=model, dtype=DTYPES[dtype], base=None if base is None else base.source)
        return io.NodeOutput(load(located(control_net_name), request))
