"""`KitControl`: a ControlNet of cn_core behind the host's control protocol.

The host calls `pre_run` at the start of a sampling run, `get_control` before each evaluation of its UNet, and `cleanup`
at the end, but not after an error or an interrupt: so everything that lives for one run sits in one `RunState`.

Shapes: B latents, C channels, H W latent. One evaluation has R = chunks * B rows (positive and negative prompt, say).
"""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.controlnet
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch
from torch import Tensor

from ..cn_core.networks.controlnet import ControlNet
from .family import check_family

logger = logging.getLogger(__name__)

CACHED_HINTS = 8
"""Latent sizes (areas, tiles) whose encoded hints one run keeps."""


@dataclass(frozen=True, kw_only=True)
class LoadedControlNet:
    """A ControlNet file in memory, shared by all copies of a control."""

    name: str
    """File name, for messages."""
    family: str
    network: ControlNet
    patcher: comfy.model_patcher.ModelPatcher
    """Holds the network's weights for the host's memory management."""
    compute_dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class EncodedHint:
    """A hint at the size of one latent."""

    pixels: Tensor
    """R or 1 rows, 3 8H 8W."""
    features: Tensor
    """R or 1 rows, C H W."""


@dataclass(kw_only=True)
class RunState:
    """What lives from `pre_run` to `cleanup`."""

    sampling: Any
    """The model's noise schedule (the host's ModelSampling)."""
    hints: OrderedDict[tuple[int, ...], EncodedHint] = field(default_factory=OrderedDict)
    """By size, and by rows where these matter; the least recently used goes first."""
    pixels: Tensor | None = None
    """What this run last put into the control's `cond_hint`."""


class KitControl(comfy.controlnet.ControlBase):
    """One ControlNet with its hint, strength and window."""

    cond_hint_original: Tensor
    """B 3 H W in [0, 1], the hint before it is resized. A tiling extension may put another one here before a run."""

    def __init__(self, loaded: LoadedControlNet, *, global_average_pooling: bool = False) -> None:
        super().__init__()
        self.loaded = loaded
        self.global_average_pooling = global_average_pooling
        self.run: RunState | None = None

    def copy(self) -> KitControl:
        """The same weights with settings of their own."""
        twin = KitControl(self.loaded)
        self.copy_to(twin)
        return twin

    def deepclone_multigpu(self, load_device: torch.device, autoregister: bool = False) -> KitControl:
        """A copy with weights of its own for another device."""
        network = copy.deepcopy(self.loaded.network)
        offload_device = comfy.model_management.unet_offload_device()
        patcher = comfy.model_patcher.ModelPatcher(network, load_device=load_device, offload_device=offload_device)
        clone = self.copy()
        clone.loaded = replace(self.loaded, network=network, patcher=patcher)
        if autoregister:
            self.multigpu_clones[load_device] = clone
        return clone

    def get_models(self) -> list[comfy.model_patcher.ModelPatcher]:
        """Whatever has to be on the device with the model: this network, and those of the chain."""
        return [*super().get_models(), self.loaded.patcher]

    def pre_run(
        self, model: comfy.model_base.BaseModel, percent_to_timestep_function: Callable[[float], float]
    ) -> None:
        """Once per conditioning entry before a run; raises FamilyMismatchError if `model` needs another ControlNet."""
        super().pre_run(model, percent_to_timestep_function)
        check_family(self.loaded.name, self.loaded.family, self.loaded.network.config, model)
        self.cond_hint = None
        self.run = RunState(sampling=model.model_sampling)

    def cleanup(self) -> None:
        """After a run."""
        super().cleanup()
        self.run = None

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int, transformer_options: dict[str, Any]
    ) -> dict[str, list[Tensor | None]] | None:
        """Residuals for one evaluation: x_noisy is R C H W before the model's scaling, t the sigmas (R)."""
        previous = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(  # pyright: ignore[reportAttributeAccessIssue]
                x_noisy, t, cond, batched_number, transformer_options
            )
        if self.run is None or self.timestep_range is None:
            raise RuntimeError(f"{self.loaded.name} was asked for control outside a sampling run: pre_run comes first.")
        first, last = self.timestep_range
        if t[0] > first or t[0] < last:
            return previous
        dtype, device, sampling = self.loaded.compute_dtype, x_noisy.device, self.run.sampling
        context, y = cond.get("crossattn_controlnet", cond["c_crossattn"]), cond.get("y")
        residuals = self.loaded.network(
            sampling.calculate_input(t, x_noisy).to(dtype),
            sampling.timestep(t).to(dtype),
            comfy.model_management.cast_to_device(context, device, dtype),
            self.hint_features(self.run, x_noisy, batched_number),
            None if y is None else comfy.model_base.convert_tensor(y, dtype, device),
        )
        control = {"middle": [residuals.mid], "output": list(residuals.down)}
        return self.control_merge(control, previous, output_dtype=None)

    def hint_features(self, run: RunState, x: Tensor, chunks: int) -> Tensor:
        """The hint for latents x (R 4 H W), encoded once per run and size: R or 1 rows, C H W.

        `cond_hint` holds its pixels, as in the host's own controls. What a tiling extension puts there, a tile's hint
        of the right size, is used instead.
        """
        height, width = (side * self.compression_ratio for side in x.shape[2:])
        theirs = None if self.cond_hint is run.pixels else self.cond_hint
        if theirs is not None and tuple(theirs.shape[2:]) == (height, width):
            return self.loaded.network.encode_hint(broadcast_rows(theirs, x.shape[0], chunks))
        pictures = self.cond_hint_original.shape[0]
        key = (height, width) if pictures == 1 else (height, width, x.shape[0], chunks)
        if key not in run.hints:
            if not run.hints and pictures not in (1, x.shape[0] // chunks):
                logger.warning(
                    "%s: %d hints for a batch of %d latents; they are taken in order, cut off or begun again.",
                    *(self.loaded.name, pictures, x.shape[0] // chunks),
                )
            run.hints[key] = self.encode(x, height, width, chunks)
            if len(run.hints) > CACHED_HINTS:
                run.hints.popitem(last=False)
        run.hints.move_to_end(key)
        self.cond_hint = run.pixels = run.hints[key].pixels
        return run.hints[key].features

    def encode(self, x: Tensor, height: int, width: int, chunks: int) -> EncodedHint:
        """Resize and encode the hint as the host's ControlNet does.

        Several hints are repeated for every row before they are encoded: at small sizes a convolution gives other bits
        for another batch.
        """
        pixels = comfy.utils.common_upscale(self.cond_hint_original, width, height, self.upscale_algorithm, "center")
        pixels = broadcast_rows(pixels.to(device=x.device, dtype=self.loaded.compute_dtype), x.shape[0], chunks)
        return EncodedHint(pixels=pixels, features=self.loaded.network.encode_hint(pixels))


def broadcast_rows(hints: Tensor, rows: int, chunks: int) -> Tensor:
    """`rows` hints in the host's order (taken in turn, the same for each chunk); a single hint stays single.

    As many hints as rows are taken as they are, even if that gives chunks different ones: so does the host.
    """
    return hints if hints.shape[0] == rows else comfy.controlnet.broadcast_image_to(hints, rows, chunks)
