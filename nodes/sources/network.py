"""`NetworkSource`: a ControlNet of cn_core, plain or union, in the host's memory management."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.ops
import comfy.supported_models_base
import comfy.utils
import torch
from torch import Tensor

from ...cn_core.control_types import names
from ...cn_core.errors import ControlNetKitError
from ...cn_core.files.detect import Detected
from ...cn_core.files.identify import network
from ...cn_core.networks.controlnet import ControlNet
from ...cn_core.networks.union import UnionControlNet
from ..cache import Features
from ..family import check_family
from .held import HeldSource, held
from .source import Call, Control, Layout


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkSource(HeldSource[ControlNet]):
    """A ControlNet of SD 1.x, SD 2.x, SDXL or of their shape."""

    compute_dtype: torch.dtype
    kind: str = "ControlNet"
    layout: Layout = "unet"
    control_types: tuple[str, ...] = ()
    inside: bool = False

    def check(self, model: comfy.model_base.BaseModel) -> None:
        """By the widths of text and latents."""
        check_family(self.name, self.family, self.network.config, model)

    def encode(self, hints: Sequence[Tensor], control_types: Sequence[int]) -> Features:
        """Features of the hint; of a union network also the embedding of the types."""
        hints = [hint.to(self.compute_dtype) for hint in hints]
        if isinstance(self.network, UnionControlNet):
            return self.network.encode_hints(hints, control_types)
        if len(hints) > 1:
            raise ControlNetKitError(
                f"{self.name} is no union ControlNet: it takes one hint, and got {len(hints)}. Chain a second Apply."
            )
        return self.network.encode_hint(hints[0])

    def residuals(self, call: Call, features: Features) -> Control:
        """For the UNet's skips and its middle block."""
        hint_features, type_embedding = (features, None) if isinstance(features, Tensor) else features
        dtype, device = self.compute_dtype, call.x.device
        context, y = call.cond.get("crossattn_controlnet", call.cond["c_crossattn"]), call.cond.get("y")
        residuals = self.network(
            call.sampling.calculate_input(call.sigmas, call.x).to(dtype),
            call.sampling.timestep(call.sigmas).to(dtype),
            comfy.model_management.cast_to_device(context, device, dtype),
            hint_features,
            None if y is None else comfy.model_base.convert_tensor(y, dtype, device),
            type_embedding,
        )
        return {"input": [], "middle": [residuals.mid], "output": list(residuals.down)}


def choose_dtypes(
    tensors: Mapping[str, Tensor], detected: Detected, dtype: torch.dtype | None
) -> tuple[torch.dtype, torch.dtype | None]:
    """(of the stored weights, of the computation or None for the same), by the host's rules; `dtype` is the user's."""
    supported = comfy.supported_models_base.BASE.supported_inference_dtypes
    if detected.layout == "diffusers":
        supported = [comfy.model_management.unet_dtype()]
    kept: Any = dtype or comfy.model_management.unet_dtype(
        model_params=-1, supported_dtypes=supported, weight_dtype=comfy.utils.weight_dtype(tensors)
    )
    return kept, comfy.model_management.unet_manual_cast(kept, comfy.model_management.get_torch_device())


def build_network_source(
    tensors: Mapping[str, Tensor],
    detected: Detected,
    *,
    name: str,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> NetworkSource:
    """Our network with these weights in it (bare LDM keys), handed to the host's memory management.

    Raises CheckpointError when the weights are not those of `detected`.
    """
    if detected.hint_channels != 3:
        raise ControlNetKitError(
            f"{name} takes hints of {detected.hint_channels} channels; this pack gives it RGB pictures. "
            "Use ComfyUI's own loader, or a file for 3 channels."
        )
    dtype, compute_dtype = choose_dtypes(tensors, detected, dtype)
    control_net, patcher = held(
        partial(network, detected),
        tensors,
        name=name,
        operations=comfy.ops.pick_operations(dtype, compute_dtype),
        dtype=dtype,
        # As the host does: attention in float32 for SD 2.x, but not when its file is in the diffusers layout.
        precision=torch.float32 if detected.family == "SD 2.x" and detected.layout == "ldm" else None,
    )
    return NetworkSource(
        name=name,
        family=detected.family,
        network=control_net,
        patcher=patcher,
        compute_dtype=compute_dtype or dtype,
        metadata=dict(metadata or {}),
        kind="ControlNet-Union" if detected.control_types else "ControlNet",
        control_types=names(detected.family, detected.control_types),
    )
