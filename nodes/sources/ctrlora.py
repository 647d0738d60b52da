"""`CtrLoRASource`: a CtrLoRA's ControlNet, whose hint is a latent that the model's VAE makes of the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import comfy.controlnet
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ...cn_core.errors import CheckpointError, ControlNetKitError
from ...cn_core.files.checkpoint import Checkpoint
from ...cn_core.files.ctrlora import apply, base_tensors, detect_ctrlora_base, is_ctrlora
from ...cn_core.files.detect import describe_foreign
from ...cn_core.networks.latent_controlnet import LatentControlNet
from ..cache import CachingEncoder, Features, HintCache
from .held import held
from .network import NetworkSource, choose_dtypes
from .source import Call, Control, ControlSource, Layout


class CtrLoRASource(ControlSource):
    """Shares its network with its copies; VAE and latents are of one control and one run."""

    kind = "CtrLoRA"
    layout: Layout = "unet"
    takes_latent_hint = True
    """The control needs a VAE."""

    def __init__(self, controlnet: NetworkSource) -> None:
        self.controlnet = controlnet
        self.name, self.family, self.metadata = controlnet.name, controlnet.family, controlnet.metadata
        self.vae: CachingEncoder | None = None
        self.latent_format: comfy.latent_formats.LatentFormat | None = None
        self.latents = WeakIdKeyDictionary()
        """Of this run's hints."""

    def copy(self) -> CtrLoRASource:
        """With the same weights."""
        return CtrLoRASource(self.controlnet)

    def models(self) -> list[comfy.model_patcher.ModelPatcher]:
        """The network; a VAE is loaded when it is needed."""
        return self.controlnet.models()

    def for_device(self, device: torch.device) -> CtrLoRASource:
        """A copy of the weights on the device."""
        return CtrLoRASource(self.controlnet.for_device(device))

    def prepare(self, control: comfy.controlnet.ControlBase, cache: HintCache) -> None:
        """Take over the VAE."""
        self.vae = None if control.vae is None else CachingEncoder(control.vae, cache)

    def check(self, model: comfy.model_base.BaseModel) -> None:
        """By the widths of text and latents."""
        self.controlnet.check(model)

    def start(self, model: comfy.model_base.BaseModel) -> None:
        """Raise ControlNetKitError if there is no VAE."""
        if self.vae is None:
            raise ControlNetKitError(
                f"{self.name} is a CtrLoRA and takes its hint as a latent: connect the `vae` of ApplyControlNet."
            )
        self.latent_format, self.latents = model.latent_format, WeakIdKeyDictionary()

    def stop(self) -> None:
        """After a run."""
        self.vae, self.latents = None, WeakIdKeyDictionary()

    def encode(self, hints: Sequence[Tensor], control_types: Sequence[int]) -> Features:  # noqa: ARG002
        """The hint itself: what the VAE makes of it has a cache of its own, for it depends on the VAE as well."""
        if len(hints) > 1:
            raise ControlNetKitError(f"{self.name} takes one hint, and got {len(hints)}. Chain a second Apply.")
        return hints[0]

    def residuals(self, call: Call, features: Features) -> Control:
        """For the UNet's skips and its middle block."""
        if not isinstance(features, Tensor):
            raise TypeError(f"One hint was expected, got {len(features)}.")
        if features not in self.latents:
            self.latents[features] = self.latent(features)
        return self.controlnet.residuals(call, self.latents[features])

    def latent(self, hint: Tensor) -> Tensor:
        """R or 1 rows, 3 8H 8W in [0, 1] -> R or 1 rows, C H W."""
        if self.vae is None or self.latent_format is None:
            raise RuntimeError(f"{self.name} was asked for residuals outside a run: `start` comes first.")
        loaded = comfy.model_management.loaded_models(only_currently_used=True)
        # The network was trained on what the VAE makes of [0, 1] itself; the host's VAE maps that to [-1, 1] first.
        latent = self.vae.encode((hint.movedim(1, -1).float() + 1) / 2)
        comfy.model_management.load_models_gpu(loaded)
        return self.latent_format.process_in(latent).to(hint.device, self.controlnet.compute_dtype)


def load_ctrlora(
    checkpoint: Checkpoint, *, base: ControlSource | None = None, dtype: torch.dtype | None = None
) -> CtrLoRASource:
    """A LoRA applied to its base, which is another `CtrLoRASource`, or a base itself (it needs none).

    `dtype` is for storing the weights, None as the host would. Raises CheckpointError for other files and when the base
    is missing or none, FamilyMismatchError when the two do not fit.
    """
    name, tensors = checkpoint.path.name, checkpoint.tensors
    if is_ctrlora(tensors):
        weights = None if base is None else network_weights(base)
        return build(apply(weights, tensors, name=name), name, checkpoint.metadata, dtype)
    if detect_ctrlora_base(tensors) is None:
        what = describe_foreign(tensors)
        raise CheckpointError(f"{name} is neither a CtrLoRA nor the base of one, it looks like {what}.")
    return build(base_tensors(tensors), name, checkpoint.metadata, dtype)


def network_weights(base: ControlSource) -> Mapping[str, Tensor]:
    """Of a base ControlNet; nothing for networks of other kinds."""
    return base.controlnet.network.state_dict() if isinstance(base, CtrLoRASource) else {}


def build(
    tensors: Mapping[str, Tensor], name: str, metadata: Mapping[str, str], dtype: torch.dtype | None
) -> CtrLoRASource:
    """The network with these weights in it, handed to the host's memory management."""
    detected = detect_ctrlora_base(tensors)
    if detected is None:
        raise CheckpointError(f"{name} makes no ControlNet for a Stable Diffusion UNet. Use another base or file.")
    dtype, compute_dtype = choose_dtypes(tensors, detected, dtype)
    operations = comfy.ops.pick_operations(dtype, compute_dtype)
    network, patcher = held(
        partial(LatentControlNet, detected.config), tensors, name=name, operations=operations, dtype=dtype
    )
    return CtrLoRASource(
        NetworkSource(
            name=name,
            family=detected.family,
            network=network,
            patcher=patcher,
            compute_dtype=compute_dtype or dtype,
            metadata=dict(metadata),
        )
    )
