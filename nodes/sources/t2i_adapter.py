"""`T2IAdapterSource`: a T2I-Adapter of cn_core in the host's memory management."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import comfy.model_base
import comfy.ops
import comfy.utils
import torch
from torch import Tensor

from ...cn_core.errors import CheckpointError, ControlNetKitError
from ...cn_core.files.checkpoint import Checkpoint
from ...cn_core.files.detect import describe_foreign
from ...cn_core.files.t2i_adapter import detect_t2i_adapter
from ...cn_core.networks.t2i_adapter import INPUT_BLOCKS, INPUT_BLOCKS_XL, T2IAdapter
from ..cache import Features
from ..family import check_widths
from .held import HeldSource, held
from .source import Call, Control, Layout

SLOTS, SLOTS_XL = 12, 10
"""Length of the host's list under "input"; chained controls are added entry by entry, so it has to be the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class T2IAdapterSource(HeldSource[T2IAdapter]):
    """A T2I-Adapter for SD 1.x or SDXL. It computes in float32, the dtype of the latents in the host's sampling."""

    kind: str = "T2I-Adapter"
    layout: Layout = "t2i"
    control_types: tuple[str, ...] = ()
    inside: bool = False

    def check(self, model: comfy.model_base.BaseModel) -> None:
        """By the widths of the UNet's levels."""
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
    dtype = dtype or comfy.utils.weight_dtype(detected.tensors) or torch.float32
    operations = comfy.ops.pick_operations(dtype, torch.float32)
    build = partial(T2IAdapter, detected.config)
    network, patcher = held(build, detected.tensors, name=name, operations=operations, dtype=dtype)
    return T2IAdapterSource(
        name=name, family=detected.family, network=network, patcher=patcher, metadata=dict(checkpoint.metadata)
    )
