"""Networks with random weights, each as our control and as the host's, and what to ask them with.

Those that would take too long at their public width are narrow; there the fixed costs of a call weigh more than they do
in use. The host has to be importable before this file is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.latent_formats
import comfy.ldm.flux.controlnet
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.supported_models
import comfy.supported_models_base
import folder_paths
import torch
from controlnet_kit.cn_core.files.detect import detect
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import SD1, UNetConfig
from controlnet_kit.cn_core.networks.t2i_adapter import T2IAdapterConfig
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.nodes.control import KitControl, as_kit
from controlnet_kit.nodes.load import Request, load
from controlnet_kit.nodes.sources.network import build_network_source
from random_adapters import adapter_tensors
from random_families import UNION, UNION_SHAPE, StandInVAE
from random_loras import control_lora_tensors
from random_models import SHAPES, Tensors, control_tensors, controlnet_file, host_model, randomise_
from random_transformers import FLOAT32, FLUX
from torch import Tensor

ROWS = 2
"""A positive and a negative prompt in one batch."""
WIDE: dict[str, Any] = {"hidden_size": 512, "num_heads": 4, "depth": 4, "depth_single_blocks": 2}
"""A Flux ControlNet a sixth as wide as the public ones."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One network as our control and as the host's, and what to ask them with."""

    name: str
    ours: Any
    core: Any
    model: comfy.model_base.BaseModel
    cond: Tensors
    pairs: dict[int, int]
    """How many to measure at each size of the latent."""
    channels: int = 4
    vae: Any = None


def empty_model(host: type[comfy.supported_models_base.BASE], config: dict[str, Any]) -> comfy.model_base.BaseModel:
    """The host's model without memory: a control asks for its schedule, its configuration and its dtype only."""
    supported = host(config)
    supported.set_inference_dtype(torch.float32, None)
    return supported.get_model({}, device=torch.device("meta"))


def unet_shape(config: UNetConfig) -> dict[str, Any]:
    """In the host's words."""
    return comfy.model_detection.detect_unet_config(dict(UNet(config, Backend(device="meta")).state_dict()), "")


def tokens(width: int, **more: int) -> Tensors:
    """77 text tokens of this width, and further vectors."""
    return {"c_crossattn": torch.randn(ROWS, 77, width)} | {
        name: torch.randn(ROWS, size) for name, size in more.items()
    }


def loaded(tensors: Tensors) -> dict[str, Any]:
    """A file with these weights, by our loader and by the host's."""
    name = controlnet_file(tensors, "random.safetensors")
    path = Path(folder_paths.get_full_path_or_raise("controlnet", name))
    return {"ours": load(path, Request()), "core": comfy.controlnet.load_controlnet(str(path))}


def sd15() -> Family:
    """At its full width, in half precision as most files are shared."""
    return Family(
        name="SD 1.5, full width",
        **loaded(control_tensors(SD1, dtype=torch.float16)),
        model=empty_model(comfy.supported_models.SD15, unet_shape(SD1)),
        cond=tokens(SD1.context_dim),
        pairs={32: 11, 64: 7},
    )


def sdxl() -> Family:
    """A fifth as wide and two transformer blocks where the public ones have ten."""
    shape = SHAPES["SDXL"]
    return Family(
        name="SDXL, narrow",
        **loaded(control_tensors(shape.config, dtype=torch.float16)),
        model=empty_model(shape.host, unet_shape(shape.config)),
        cond=tokens(shape.config.context_dim, y=shape.config.adm_in_channels or 0),
        pairs={64: 15},
    )


def union() -> Family:
    """At its full width and less deep: the host's loader takes only the full size, so both are built from classes."""
    network = randomise_(comfy.cldm.cldm.ControlNet(**UNION_SHAPE, **FLOAT32), 1)
    core = comfy.controlnet.ControlNet(network, load_device=comfy.model_management.get_torch_device())
    tensors = dict(network.state_dict())
    detected = detect(tensors)
    if detected is None:
        raise RuntimeError("The union network is not recognised.")
    ours = KitControl(build_network_source(tensors, detected, name="union.safetensors"))
    for control in (ours, core):
        control.set_extra_arg("control_type", [3])
    return Family(
        name="Union, less deep",
        ours=ours,
        core=core,
        model=empty_model(comfy.supported_models_base.BASE, unet_shape(UNION)),
        cond=tokens(UNION.context_dim),
        pairs={32: 9},
    )


def control_lora() -> Family:
    """Of rank 32 over a narrow SDXL model."""
    shape = SHAPES["SDXL"]
    return Family(
        name="Control-LoRA for SDXL, narrow",
        **loaded(control_lora_tensors(shape.config, rank=32, dtype=torch.float16)),
        model=host_model(shape).model,
        cond=tokens(shape.config.context_dim, y=shape.config.adm_in_channels or 0),
        pairs={64: 15},
    )


def t2i_adapter() -> Family:
    """At its full width: a step only hands out copies."""
    return Family(
        name="T2I-Adapter, full width",
        **loaded(adapter_tensors(T2IAdapterConfig())),
        model=empty_model(comfy.supported_models.SD15, unet_shape(SD1)),
        cond=tokens(768),
        pairs={64: 99},
    )


def flux() -> Family:
    """Run by the host's own code on either side; takes its hint as a latent."""
    network = comfy.ldm.flux.controlnet.ControlNetFlux(latent_input=True, **(FLUX | WIDE), **FLOAT32)
    core = comfy.controlnet.ControlNet(
        randomise_(network, 1),
        compression_ratio=1,
        latent_format=comfy.latent_formats.Flux(),
        load_device=comfy.model_management.get_torch_device(),
        extra_conds=["y", "guidance"],
    )
    return Family(
        name="Flux, narrow",
        ours=as_kit(core),
        core=core,
        model=empty_model(comfy.supported_models.Flux, {"image_model": "flux", **FLUX, **WIDE}),
        cond=tokens(FLUX["context_in_dim"], y=FLUX["vec_in_dim"]) | {"guidance": torch.full((ROWS,), 3.5)},
        pairs={64: 9},
        channels=16,
        vae=StandInVAE(16),
    )


FAMILIES = {build.__name__: build for build in (sd15, sdxl, union, control_lora, t2i_adapter, flux)}


def prepared(family: Family, control: Any, hint: Tensor) -> Any:
    """A copy with its hint set and its run begun, as the host's sampler leaves it."""
    control, model = control.copy().set_cond_hint(hint, vae=family.vae), family.model
    comfy.model_management.load_models_gpu(control.get_models())
    control.pre_run(model, model.model_sampling.percent_to_sigma)
    return control


def on_device(tensors: Tensors) -> Tensors:
    """Where the host computes."""
    device = comfy.model_management.get_torch_device()
    return {name: tensor.to(device) for name, tensor in tensors.items()}
