"""`SaveControlNet`: a CONTROL_NET -> a file, or a folder for diffusers, in the host's output folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_patcher
import folder_paths
from comfy_api.latest import io, ui
from torch import Tensor

from ..cn_core.errors import ControlNetKitError
from ..cn_core.files.checkpoint import write
from ..cn_core.files.convert import (
    FOLDER_CONFIG,
    FOLDER_WEIGHTS,
    cast,
    control_lora_file,
    diffusers_config,
    to_diffusers,
)
from ..cn_core.networks.config import UNetConfig
from ..cn_core.networks.control_lora import LowRank
from .control import KitControl
from .load import DTYPES
from .sources.control_lora import ControlLoRASource
from .sources.ctrlora import CtrLoRASource
from .sources.lllite import LLLiteSource
from .sources.network import NetworkSource
from .sources.t2i_adapter import T2IAdapterSource

FOLDER = "controlnet"
"""Under the host's output folder; nothing is written anywhere else."""
LDM, DIFFUSERS, DIFFUSERS_FOLDER = "LDM", "diffusers", "diffusers folder"
SAVED_DTYPES = {"keep": None, **{name: DTYPES[name] for name in ("fp16", "bf16", "fp32")}}
STALE = ("modelspec.hash_sha256", "format")
"""Fields of a header that describe the old file."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a CONTROL_NET holds."""

    name: str
    kind: str
    tensors: dict[str, Tensor]
    """On the CPU, as files of this kind name them; a ControlNet's under LDM's keys without prefix."""
    metadata: dict[str, str]
    config: UNetConfig | None = None
    """Of a ControlNet."""
    pooled: bool = False
    """Its residuals are averaged over the picture."""


def contents(control: object) -> Contents:
    """The weights and metadata of a control that this pack runs; raises ControlNetKitError for all others."""
    source = control.source if isinstance(control, KitControl) else None
    if isinstance(source, CtrLoRASource):
        inner = source.controlnet
        return Contents(name=inner.name, kind=source.kind, metadata=inner.metadata, tensors=state(inner.patcher))
    if not isinstance(source, NetworkSource | ControlLoRASource | T2IAdapterSource | LLLiteSource):
        what = source.name if source else type(control).__name__
        raise ControlNetKitError(
            f"{what} is run by ComfyUI, and only networks that this pack runs can be saved or converted. "
            "Load SD 1.x, SD 2.x and SDXL files with Load ControlNet (Kit)."
        )
    found = Contents(name=source.name, kind=source.kind, metadata=dict(source.metadata), tensors=state(source.patcher))
    if isinstance(source, NetworkSource) and isinstance(control, KitControl):
        return replace(found, config=source.network.config, pooled=control.global_average_pooling)
    if isinstance(source, ControlLoRASource):
        layers = source.network.named_modules()
        shapes = {name: layer.shape for name, layer in layers if isinstance(layer, LowRank)}
        return replace(found, tensors=control_lora_file(found.tensors, shapes))
    return found


def state(patcher: comfy.model_patcher.ModelPatcher) -> dict[str, Tensor]:
    """A network's weights, on the CPU."""
    return {key: tensor.detach().cpu() for key, tensor in patcher.model_state_dict().items()}


def free_path(prefix: str) -> Path:
    """Where the next file of this prefix goes, without a suffix, by the host's counter.

    Raises ControlNetKitError for a prefix, which anyone may have written, that leads out of the folder.
    """
    root = Path(folder_paths.get_output_directory(), FOLDER).resolve()
    wanted = Path(root, prefix)
    if not prefix.isprintable() or not Path(prefix).name.strip(". ") or not wanted.resolve().is_relative_to(root):
        raise ControlNetKitError(
            f'SaveControlNet writes into output/{FOLDER} only, and the prefix is "{prefix!r:.80}". '
            "Use a name, or folders and a name: sketches/mine."
        )
    folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, str(root))
    return Path(folder, f"{name}_{counter:05}_")


def save(control: object, prefix: str, layout: str, dtype: str) -> Path:
    """Write a control's network; returns the file, or diffusers' folder."""
    saved = contents(control)
    if layout != LDM and saved.config is None:
        raise ControlNetKitError(f"{saved.name} is a {saved.kind}, which has no form in diffusers: save it as {LDM}.")
    tensors = cast(saved.tensors, SAVED_DTYPES[dtype])
    metadata = {**{key: value for key, value in saved.metadata.items() if key not in STALE}, "format": "pt"}
    if saved.config is not None and layout == DIFFUSERS_FOLDER:
        settings = diffusers_config(tensors, saved.config, pooled=saved.pooled)
        return save_folder(free_path(prefix), to_diffusers(tensors, saved.config), metadata, settings)
    if saved.config is not None and layout == DIFFUSERS:
        tensors = to_diffusers(tensors, saved.config)
    path = free_path(prefix)
    # A loader pools the residuals of files that are named so, ours and the host's.
    path = path.with_name(f"{path.name}{'shuffle' if saved.pooled else ''}.safetensors")
    write(path, tensors, metadata)
    return path


def save_folder(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], settings: Mapping[str, Any]
) -> Path:
    """The two files of a diffusers model."""
    path.mkdir()
    write(path / FOLDER_WEIGHTS, tensors, metadata)
    (path / FOLDER_CONFIG).write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return path


class SaveControlNet(io.ComfyNode):
    """Into output/controlnet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="SaveControlNet",
            display_name="Save ControlNet",
            category="ControlNet Kit",
            description="Writes a ControlNet to output/controlnet as safetensors with its metadata: in another layout "
            "or dtype, or what Merge ControlNet made. Move the file to models/controlnet to use it.",
            search_aliases=["convert controlnet", "export controlnet", "diffusers", "pth to safetensors"],
            inputs=[
                io.ControlNet.Input("control_net", tooltip="From Load, Merge or Train ControlNet."),
                io.String.Input(
                    "filename_prefix",
                    default="ControlNet",
                    tooltip="Name of the file, folders allowed; a number is added, so that nothing is overwritten.",
                ),
                io.Combo.Input(
                    "layout",
                    options=[LDM, DIFFUSERS, DIFFUSERS_FOLDER],
                    default=LDM,
                    tooltip="Names of the weights: LDM's, which everything reads; diffusers' in one file; or a folder "
                    "with config.json for diffusers' from_pretrained.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(SAVED_DTYPES),
                    default="keep",
                    tooltip="Precision of the weights; keep: as they are in memory. fp16 is half the size of fp32.",
                ),
            ],
            outputs=[io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, control_net: object, filename_prefix: str, layout: str, dtype: str
    ) -> io.NodeOutput:
        """The path under the output folder."""
        path = save(control_net, filename_prefix, layout, dtype)
        shown = path.relative_to(Path(folder_paths.get_output_directory()).resolve()).as_posix()
        return io.NodeOutput(shown, ui=ui.PreviewText(shown))
