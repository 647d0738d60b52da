"""`ControlLoRASource`: a Control-LoRA over the weights of the model that is being sampled.

The host holds its thin matrices on the device as it holds any model. The weights under them are the model's, wherever
the host keeps them and with whatever LoRAs: nothing is copied, and each sum lives for one layer's call.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from torch import Tensor, nn

from ...cn_core.errors import CheckpointError, ControlNetKitError
from ...cn_core.files.checkpoint import Checkpoint
from ...cn_core.files.control_lora import detect_control_lora, is_control_lora, network_tensors
from ...cn_core.files.detect import Detected, describe_foreign
from ...cn_core.networks.attention import CrossAttention
from ...cn_core.networks.backend import Backend
from ...cn_core.networks.control_lora import ControlLoRA, LowRank, Weights
from ..cache import Features
from ..family import check_family
from ..host import attention
from .held import held, twin
from .network import NetworkSource
from .source import Call, Control, ControlSource, Layout


@contextmanager
def read_from_host(layer: nn.Module, x: Tensor) -> Generator[Weights, None, None]:
    """A host's layer's weights as that layer would use them for x: patched, cast, on the device."""
    weight, bias, stream = comfy.ops.cast_bias_weight(layer, x, offloadable=True)
    try:
        yield weight, bias
    finally:
        comfy.ops.uncast_bias_weight(layer, weight, bias, stream)


class ControlLoRASource(ControlSource):
    """Bound to a model by `start`; all copies of a control are bound together."""

    kind = "Control-LoRA"
    layout: Layout = "unet"

    def __init__(
        self,
        network: ControlLoRA,
        patcher: comfy.model_patcher.ModelPatcher,
        *,
        name: str,
        family: str,
        metadata: dict[str, str],
    ) -> None:
        self.network, self.patcher = network, patcher
        self.name, self.family, self.metadata = name, family, metadata
        self.running: NetworkSource | None = None
        """The ControlNet that model and Control-LoRA make together."""

    def models(self) -> list[comfy.model_patcher.ModelPatcher]:
        """The Control-LoRA; the host holds the model anyway."""
        return [self.patcher]

    def memory(self, dtype: torch.dtype) -> float:
        """One layer's weight and what is added to it."""
        sizes = [layer.shape.numel() for layer in self.network.modules() if isinstance(layer, LowRank)]
        return 2 * max(sizes, default=0) * comfy.model_management.dtype_size(dtype)

    def for_device(self, device: torch.device) -> ControlLoRASource:
        """A copy of the matrices on the device, for a model that is there as well."""
        network, patcher = twin(self.network, device)
        return ControlLoRASource(network, patcher, name=self.name, family=self.family, metadata=self.metadata)

    def check(self, model: comfy.model_base.BaseModel) -> None:
        """By the widths of text and latents."""
        check_family(self.name, self.family, self.network.config, model)

    def start(self, model: comfy.model_base.BaseModel) -> None:
        """Take the missing weights from `model`, as well as what no file tells: heads and precision of attention."""
        self.network.bind(model.diffusion_model, name=self.name)
        for key, layer in self.network.named_modules():
            if isinstance(layer, CrossAttention):
                precision: Any = model.diffusion_model.get_submodule(key).attn_precision
                layer.attention = partial(attention, precision=precision)
        self.running = NetworkSource(
            name=self.name,
            family=self.family,
            network=self.network,
            patcher=self.patcher,
            compute_dtype=model.get_dtype_inference(),
            metadata=self.metadata,
        )

    def stop(self) -> None:
        """The model is not needed any more."""
        self.running = None

    @property
    def controlnet(self) -> NetworkSource:
        """Raises RuntimeError outside a run."""
        if self.running is None:
            raise RuntimeError(f"{self.name} is a Control-LoRA without a model: `start` comes first.")
        return self.running

    def encode(self, hints: Sequence[Tensor], control_types: Sequence[int]) -> Features:
        """Features of the one hint."""
        return self.controlnet.encode(hints, control_types)

    def residuals(self, call: Call, features: Features) -> Control:
        """For the UNet's skips and its middle block."""
        return self.controlnet.residuals(call, features)


def control_lora_network(detected: Detected, tensors: dict[str, Tensor], backend: Backend) -> ControlLoRA:
    """A network of the file's shape, its weights not yet loaded."""
    return ControlLoRA(
        detected.config,
        tensors,
        backend,
        hint_channels=detected.hint_channels,
        hint_encoder_kind=detected.hint_encoder_kind,
        read=read_from_host,
    )


def load_control_lora(checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> ControlLoRASource:
    """A Control-LoRA in the host's memory management; `dtype` is for storing it, None that of the file.

    Raises CheckpointError when the file holds no Control-LoRA, or not a whole one.
    """
    name, detected = checkpoint.path.name, detect_control_lora(checkpoint.tensors)
    if detected is None:
        marked = is_control_lora(checkpoint.tensors)
        what = "one of another network" if marked else describe_foreign(checkpoint.tensors)
        raise CheckpointError(
            f"{name} is no Control-LoRA for a Stable Diffusion UNet, it looks like {what}. Choose another file."
        )
    if detected.hint_channels != 3:
        raise ControlNetKitError(
            f"{name} takes hints of {detected.hint_channels} channels; this pack gives it RGB pictures. "
            "Use ComfyUI's own loader, or a file for 3 channels."
        )
    tensors = network_tensors(checkpoint.tensors)
    dtype = dtype or comfy.utils.weight_dtype(tensors) or torch.float32
    network, patcher = held(
        partial(control_lora_network, detected, tensors),
        tensors,
        name=name,
        operations=comfy.ops.manual_cast,  # the dtype of the computation is the model's, which is not known yet
        dtype=dtype,
    )
    return ControlLoRASource(network, patcher, name=name, family=detected.family, metadata=dict(checkpoint.metadata))
