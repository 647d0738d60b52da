"""`HostSource`: any control of the host's own, so that every option works for every family that the host knows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.cldm.dit_embedder
import comfy.cldm.mmdit
import comfy.controlnet
import comfy.ldm.cascade.controlnet
import comfy.ldm.common_dit
import comfy.ldm.flux.controlnet
import comfy.ldm.hydit.controlnet
import comfy.ldm.qwen_image.controlnet
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.t2i_adapter.adapter
import comfy.utils
import torch
from torch import Tensor, nn

from ...cn_core.control_types import names
from ...cn_core.errors import ControlNetKitError
from ...cn_core.files.detect import Detected, detect
from ..areas import regions
from ..cache import CachingEncoder, Features, HintCache
from ..family import check_family, check_tokens
from .source import Call, Control, ControlSource, Layout

logger = logging.getLogger(__name__)

FAMILIES: tuple[tuple[type[nn.Module], str, Layout], ...] = (
    (comfy.cldm.cldm.ControlNet, "Stable Diffusion", "unet"),
    (comfy.t2i_adapter.adapter.Adapter, "T2I-Adapter", "t2i"),
    (comfy.t2i_adapter.adapter.Adapter_light, "T2I-Adapter", "t2i"),
    (comfy.ldm.cascade.controlnet.ControlNet, "Stable Cascade", "t2i"),
    (comfy.cldm.mmdit.ControlNet, "SD 3", "transformer"),
    (comfy.cldm.dit_embedder.ControlNetEmbedder, "SD 3.5", "transformer"),
    (comfy.ldm.flux.controlnet.ControlNetFlux, "Flux", "transformer"),
    (comfy.ldm.qwen_image.controlnet.QwenImageControlNetModel, "Qwen-Image", "transformer"),
    (comfy.ldm.qwen_image.controlnet.QwenImageFunControlNetModel, "Qwen-Image", "transformer"),
    # Its model takes residuals on long skips, the last one first, as a UNet does.
    (comfy.ldm.hydit.controlnet.HunYuanControlNet, "HunyuanDiT", "unet"),
)
"""The host's networks: class, family, how residuals lie in the lists."""


class HostSource(ControlSource):
    """A control of the host's, or of another pack that keeps to its protocol. Not shared: it keeps a hint for a run."""

    kind = "ControlNet run by ComfyUI"

    def __init__(self, control: comfy.controlnet.ControlBase, *, name: str) -> None:
        self.control, self.name = control, name
        self.network: nn.Module | None = getattr(control, "control_model", None) or getattr(control, "t2i_model", None)
        self.family, self.layout = family(control, self.network)
        self.control_types = control_types(self.network)
        self.masks: list[Tensor] = []
        """Inpainting networks: further channels of the hint, over the whole picture."""
        self.given: tuple[Features, int] | None = None
        self.silent = False
        """The control has given no residuals, and that has been said."""

    def copy(self) -> HostSource:
        """With a copy of the host's control."""
        return HostSource(self.control.copy(), name=self.name)  # pyright: ignore[reportAttributeAccessIssue]

    def models(self) -> list[comfy.model_patcher.ModelPatcher]:
        """As the host's control says."""
        return self.control.get_models()

    def memory(self, dtype: torch.dtype) -> float:
        """As the host's control says."""
        return self.control.inference_memory_requirements(dtype)

    def for_device(self, device: torch.device) -> HostSource:
        """With the host's own clone for the device; raises ControlNetKitError where the host has none."""
        try:
            return HostSource(self.control.deepclone_multigpu(device), name=self.name)
        except (NotImplementedError, AttributeError) as error:
            raise ControlNetKitError(f"ComfyUI cannot run {self.name} on several devices: use one.") from error

    def prepare(self, control: comfy.controlnet.ControlBase, cache: HintCache) -> None:
        """Everything but strength, window, pooling and chain, which are not for the host's control to apply.

        Raises ControlNetKitError if there is no VAE and the hint is to be a latent.
        """
        inner = self.control
        if inner.latent_format is not None and control.vae is None:
            raise ControlNetKitError(f"{self.name} takes its hint as a latent: connect the `vae` of ApplyControlNet.")
        inner.strength, inner.timestep_percent_range, inner.previous_controlnet = 1.0, (0.0, 1.0), None
        inner.global_average_pooling = False
        inner.extra_args, self.masks = dict(control.extra_args), list(control.extra_concat_orig)
        inner.vae = None if control.vae is None else CachingEncoder(control.vae, cache)

    def check(self, model: comfy.model_base.BaseModel) -> None:
        """By the widths of text and latents or tokens, for the host's own networks."""
        if isinstance(self.network, comfy.cldm.cldm.ControlNet):
            detected = detected_in(self.network)
            if detected is not None:
                check_family(self.name, detected.family, detected.config, model)
        elif self.network is not None and self.layout != "t2i":
            check_tokens(f"{self.name} is a ControlNet for {self.family}", self.network, model)

    def start(self, model: comfy.model_base.BaseModel) -> None:
        """As the host starts it."""
        self.control.cond_hint, self.given, self.silent = None, None, False
        self.control.pre_run(model, model.model_sampling.percent_to_sigma)

    def stop(self) -> None:
        """After a run."""
        self.control.cleanup()
        self.given = None

    def hint_size(self, height: int, width: int) -> tuple[int, int] | None:
        """As the host's controls resize hints; None for controls of other packs, that may do it in another way."""
        control = self.control
        if isinstance(control, comfy.controlnet.T2IAdapter):
            width, height = control.scale_image_to(
                width * control.compression_ratio, height * control.compression_ratio
            )
            return height, width
        if not isinstance(control, comfy.controlnet.ControlNet):
            return None
        pixels = control.compression_ratio * (1 if control.vae is None else control.vae.spacial_compression_encode())
        return pixels * height, pixels * width

    def response(self, strength: float) -> float:
        """Qwen-Fun's residuals grow with the root of the strength."""
        if isinstance(self.control, comfy.controlnet.QwenFunControlNet):
            return max(strength, 0.0) ** 0.5
        return strength

    def encode(self, hints: Sequence[Tensor], control_types: Sequence[int]) -> Features:  # noqa: ARG002
        """The hint itself: what a VAE makes of it has a cache of its own, for it depends on the VAE as well."""
        if len(hints) > 1:
            raise ControlNetKitError(
                f"ComfyUI runs {self.name}, with one hint; it got {len(hints)}. Chain a second ApplyControlNet."
            )
        return hints[0]

    def residuals(self, call: Call, features: Features) -> Control:
        """What the host's control gives for this hint."""
        if not isinstance(features, Tensor):
            raise TypeError(f"One hint was expected, got {len(features)}.")
        inner, rows = self.control, call.x.shape[0]
        if self.given is None or self.given[0] is not features or self.given[1] != rows:
            inner.cond_hint_original, inner.cond_hint, self.given = self.padded(features, 8), None, (features, rows)
            inner.extra_concat_orig = [mask_parts(mask, call) for mask in self.masks]
        found = inner.get_control(  # pyright: ignore[reportAttributeAccessIssue]
            self.padded(call.x, 1), call.sigmas, call.cond, call.chunks, call.options
        )
        if found is None and not self.silent:
            self.silent = True
            logger.warning(
                "%s (%s) gave no residuals: if it acts in another way, strength, mask and weights do not reach it.",
                *(self.name, self.family),
            )
        return found or {}

    def padded(self, pictures: Tensor, scale: int) -> Tensor:
        """At the right and bottom to an even number of latent positions, each of `scale` pictures' own.

        Flux's ControlNets for hints in pixels need it, and ComfyUI leaves it out; its Flux pads in the same way.
        """
        even = not any(side % (2 * scale) for side in pictures.shape[-2:])
        if even or not isinstance(self.network, comfy.ldm.flux.controlnet.ControlNetFlux) or self.network.latent_input:
            return pictures
        return comfy.ldm.common_dit.pad_to_patch_size(pictures, (2 * scale, 2 * scale))


def mask_parts(mask: Tensor, call: Call) -> Tensor:
    """An inpainting network's mask (F 1 h w over the whole picture) for an evaluation: of areas, the part of each."""
    parts = regions(call.options, (call.x.shape[-2], call.x.shape[-1]))
    if parts is None:
        return mask
    size = next(part.whole for part in parts if part is not None)
    whole = comfy.utils.common_upscale(mask, 8 * size[1], 8 * size[0], "nearest-exact", "center")
    whole = comfy.utils.repeat_to_batch_size(whole, call.batch)
    return torch.cat([part.cut(whole) if part else whole for part in parts])


def family(control: comfy.controlnet.ControlBase, network: nn.Module | None) -> tuple[str, Layout]:
    """For messages, and for the weights of layers; a control of another pack goes by the name of its class."""
    if isinstance(control, comfy.controlnet.ControlLora):
        return "Control-LoRA", "unet"
    for kind, name, layout in FAMILIES:
        if isinstance(network, kind):
            return name, layout
    return type(network or control).__name__, "transformer"


def control_types(network: nn.Module | None) -> tuple[str, ...]:
    """Of union networks."""
    if isinstance(network, comfy.cldm.cldm.ControlNet) and network.control_add_embedding is not None:
        return names("SDXL", network.num_control_type)
    if isinstance(network, comfy.ldm.flux.controlnet.ControlNetFlux):
        return names("Flux", network.num_union_modes)
    return ()


def detected_in(network: nn.Module) -> Detected | None:
    """What the weights tell; under dynamic VRAM the host's layers may have none yet."""
    return detect(network.state_dict())


def load_host_control(
    path: Path, model: comfy.model_patcher.ModelPatcher | None, dtype: torch.dtype | None
) -> comfy.controlnet.ControlBase | None:
    """By the host's own loader, with its weights kept in `dtype`, None for its own choice."""
    options = {} if dtype is None else {"custom_operations": comfy.ops.manual_cast}
    control = comfy.controlnet.load_controlnet(str(path), model, options)
    return control if control is None or dtype is None else kept_in(control, dtype, name=path.name)


def kept_in(control: comfy.controlnet.ControlBase, dtype: torch.dtype, *, name: str) -> comfy.controlnet.ControlBase:
    """With weights of `dtype`, in layers that cast: the host's loader has the choice for some families only."""
    if isinstance(control, comfy.controlnet.ControlNet) and getattr(control, "control_model", None) is not None:
        network: Any = control.control_model
        compute_dtype = comfy.model_management.unet_manual_cast(dtype, control.load_device) or dtype
        network.to(dtype)
        network.dtype = control.manual_cast_dtype = compute_dtype
        if isinstance(network, comfy.ldm.hydit.controlnet.HunYuanControlNet):
            network.mlp_t5.to(compute_dtype)  # torch's layers, which do not cast
    else:
        logger.warning("%s: ComfyUI takes its weights to the dtype of the model, and not to %s.", name, dtype)
    return control
