"""`T2IAdapterSource`: a T2I-Adapter of cn_core in the host's memory management."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from torch import Tensor

from ...cn_core.errors import CheckpointError, ControlNetKitError
from ...cn_core.files.checkpoint import Checkpoint, check_strictly
from ...cn_core.files.detect import describe_foreign
from ...cn_core.files.t2i_adapter import detect_t2i_adapter
from ...cn_core.networks.backend import Backend
from ...cn_core.networks.t2i_adapter import INPUT_BLOCKS, INPUT_BLOCKS_XL, T2IAdapter
from ..cache import Features
from ..family import check_widths
from ..host import host_backend
from .source import Call, Control, ControlSource, Layout

SLOTS, SLOTS_XL = 12, 10
"""Length of the host's list under "input"; chained controls are added entry by entry, so it has to be the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class T2IAdapterSource(ControlSource):
    """A T2I-Adapter for SD 1.x or SDXL. It computes in float32, the dtype of the latents in the host's sampling."""

    name: str
    family: str
    network: T2IAdapter
    patcher: comfy.model_patcher.ModelPatcher
    """Holds the network's weights for the host."""
    metadata: dict[str, str]
    """Of the file."""
    kind: str = "T2I-Adapter"
    layout: Layout = "t2i"
    control_types: tuple[str, ...] = ()
    inside: bool = False

    def models(self) -> list[comfy.model_patcher.ModelPatcher]:
        """The network."""
        return [self.patcher]

    def for_device(self, device: torch.device) -> T2IAdapterSource:
        """A copy of the weights on the device."""
        network = copy.deepcopy(self.network)
        offload_device = comfy.model_management.unet_offload_device()
        patcher = comfy.model_patcher.ModelPatcher(network, load_device=device, offload_device=offload_device)
        return replace(self, network=network, patcher=patcher)

    def start(self, model: comfy.model_base.BaseModel) -> None:
        """Check that the features fit the UNet."""
        config = self.network.config
        widths = config.channels[:3] if config.xl else config.channels
        check_widths(f"{self.name} is an {self.family} T2I-Adapter", widths, model)

    def hint_size(self, height: int, width: int) -> tuple[int, int]:
        """The latent's size in pixels, rounded up to a multiple of the fold."""
        fold = self.network.config.unshuffle
        return -(-8 * height // fold) * fold, -(-8 * width // fold) * fold

    def encode(self, hints: Sequence[Tensor], control_types: Sequence[int]) -> Features:  # noqa: ARG002
        """All that there is to compute: nothing depends on the timestep."""
        if len(hints) > 1:
            raise ControlNetKitError(f"{self.name} takes one hint, and got {len(hints)}. Chain a second Apply.")
        pixels = hints[0].float()
        return self.network(pixels.mean(dim=1, keepdim=True) if self.network.config.hint_channels == 1 else pixels)

    def residuals(self, call: Call, features: Features) -> Control:
        """For the UNet's input blocks, last one first as the host takes them; of SDXL also for the middle block."""
        fresh = [feature.to(call.x.dtype, copy=True) for feature in features]
        xl = self.network.config.xl
        entries: list[Tensor | None] = [None] * (SLOTS_XL if xl else SLOTS)
        for block, feature in zip(INPUT_BLOCKS_XL if xl else INPUT_BLOCKS, fresh, strict=False):
            entries[block] = feature
        return {"input": entries[::-1], "middle": [fresh[-1]] if xl else [], "output": []}


def load_t2i_adapter(checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> T2IAdapterSource:
    """Our network with the file's weights in it, handed to the host's memory management; `dtype` is for storing them.

    Raises CheckpointError when the file holds no T2I-Adapter, or not exactly one.
    """
    name, detected = checkpoint.path.name, detect_t2i_adapter(checkpoint.tensors)
    if detected is None:
        what = describe_foreign(checkpoint.tensors)
        raise CheckpointError(f"{name} is no T2I-Adapter, it looks like {what}. Choose another file.")
    # Against an empty twin: under dynamic VRAM the host's layers have no weights to compare with before loading.
    check_strictly(T2IAdapter(detected.config, Backend(device="meta")), detected.tensors, name=name)
    dtype = dtype or comfy.utils.weight_dtype(detected.tensors) or torch.float32
    offload_device = comfy.model_management.unet_offload_device()
    operations = comfy.ops.pick_operations(dtype, torch.float32)
    network = T2IAdapter(detected.config, host_backend(operations, dtype, offload_device))
    comfy.model_management.archive_model_dtypes(network)
    patcher = comfy.model_patcher.CoreModelPatcher(
        network, load_device=comfy.model_management.get_torch_device(), offload_device=offload_device
    )
    network.load_state_dict(detected.tensors, strict=False, assign=patcher.is_dynamic())
    return T2IAdapterSource(
        name=name, family=detected.family, network=network, patcher=patcher, metadata=dict(checkpoint.metadata)
    )
