"""`HeldSource`: one network of cn_core in the host's memory management, the base of most sources."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor, nn

from ...cn_core.files.checkpoint import check_strictly
from ...cn_core.networks.backend import Backend, Operations
from ..host import host_backend
from .source import ControlSource

Network = TypeVar("Network", bound=nn.Module)
Held = TypeVar("Held", bound="HeldSource[Any]")


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldSource(ControlSource, Generic[Network]):
    """Subclasses say what the network is asked."""

    name: str
    family: str
    network: Network
    patcher: comfy.model_patcher.ModelPatcher
    """Holds the network's weights for the host."""
    metadata: dict[str, str]
    """Of the file."""

    def models(self) -> list[comfy.model_patcher.ModelPatcher]:
        """The network."""
        return [self.patcher]

    def for_device(self: Held, device: torch.device) -> Held:
        """A copy of the weights on the device."""
        network, patcher = twin(self.network, device)
        return replace(self, network=network, patcher=patcher)


def twin(network: Network, device: torch.device) -> tuple[Network, comfy.model_patcher.ModelPatcher]:
    """A copy of a network for another device."""
    copied, offload_device = copy.deepcopy(network), comfy.model_management.unet_offload_device()
    return copied, comfy.model_patcher.ModelPatcher(copied, load_device=device, offload_device=offload_device)


def held(
    build: Callable[[Backend], Network],
    tensors: Mapping[str, Tensor],
    *,
    name: str,
    operations: Operations,
    dtype: Any,
    precision: torch.dtype | None = None,
) -> tuple[Network, comfy.model_patcher.ModelPatcher]:
    """What `build` makes, with these weights in it, on the host's layers; raises CheckpointError if they do not fit.

    `dtype` is of the weights, `precision` the least that attention may compute in.
    """
    # Against an empty twin: under dynamic VRAM the host's layers have no weights to compare with before loading.
    check_strictly(build(Backend(device="meta")), tensors, name=name)
    offload_device = comfy.model_management.unet_offload_device()
    network = build(host_backend(operations, dtype, offload_device, precision=precision))
    comfy.model_management.archive_model_dtypes(network)
    patcher = comfy.model_patcher.CoreModelPatcher(
        network, load_device=comfy.model_management.get_torch_device(), offload_device=offload_device
    )
    network.load_state_dict(tensors, strict=False, assign=patcher.is_dynamic())
    return network, patcher
