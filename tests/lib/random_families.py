"""Every family of ControlNets that the host knows, narrow: its network behind the host's control and behind ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.supported_models_base
from comfy.controlnet import ControlBase, ControlLora, ControlNet
from controlnet_kit.cn_core.networks.config import UNetConfig
from host_family import Controls, Family, StandInVAE
from random_adapters import NARROW, adapter_tensors
from random_loras import control_lora_tensors
from random_models import (
    SHAPES,
    Shape,
    Tensors,
    control_tensors,
    controlnet_file,
    host_load,
    host_model,
    our_load,
    prompts,
    randomise_,
)
from random_transformers import (
    FLOAT32,
    Base,
    cascade_base,
    cascade_control,
    flux_base,
    hunyuan_base,
    hunyuan_control,
    instantx_tensors,
    mistoline_tensors,
    qwen_base,
    qwen_control,
    qwen_fun_tensors,
    sd3_base,
    sd3_tensors,
    sd35_tensors,
    unet_base,
    xlabs_tensors,
)


def from_file(tensors: Tensors, name: str) -> Controls:
    """Both loaders on one file."""
    file = controlnet_file(tensors, f"{name}.safetensors")
    return Controls(host=host_load(file), ours=our_load(file))


def from_host(control: ControlBase) -> Controls:
    """The host's control in its node and in ours."""
    return Controls(host=control, ours=control)


UNION = UNetConfig(
    channel_mult=(1, 1),
    num_res_blocks=(1, 1),
    transformer_depth=(0, 1),
    context_dim=64,
    adm_in_channels=None,
    use_linear_in_transformer=True,
)
"""320 channels, which the host's union network has in any case; otherwise as little as possible."""


UNION_SHAPE: dict[str, Any] = {"image_size": 32, "in_channels": 4, "model_channels": 320, "hint_channels": 3} | {
    **{"num_res_blocks": [1, 1], "channel_mult": (1, 1), "transformer_depth": [0, 1], "transformer_depth_middle": 1},
    **{"context_dim": 64, "use_spatial_transformer": True, "use_linear_in_transformer": True, "legacy": False},
    **{"num_head_channels": 64, "union_controlnet_num_control_type": 6},
}
"""The same in the host's words."""


def union_family() -> Family:
    """xinsir's."""
    network = comfy.cldm.cldm.ControlNet(**UNION_SHAPE, **FLOAT32)
    control = ControlNet(randomise_(network, seed=7), load_device=comfy.model_management.get_torch_device())
    control.set_extra_arg("control_type", [3])
    shape = Shape(config=UNION, host=comfy.supported_models_base.BASE)
    return Family(
        controls=from_host(control), base=Base(model=host_model(shape), prompts=prompts(shape), channels=4), size=(9, 7)
    )


def sd3(tensors: Tensors, name: str) -> Family:
    """SD3 and SD3.5."""
    return Family(controls=from_file(tensors, name), base=sd3_base(), vae=StandInVAE(16), grid=2)


def flux(tensors: Tensors, name: str, *, latent: bool) -> Family:
    """With a `latent` for a hint, or with pixels."""
    vae, size = (StandInVAE(16), (17, 15)) if latent else (None, (18, 14))
    return Family(controls=from_file(tensors, name), base=flux_base(), vae=vae, grid=2, size=size)


def flux_union() -> Family:
    """With type 4, a pose."""
    family = flux(instantx_tensors(num_union_modes=10), "union", latent=True)
    for control in (family.controls.host, family.controls.ours):
        control.set_extra_arg("control_type", [4])
    return family


def qwen(controls: Controls) -> Family:
    """Latents with a dimension of frames."""
    return Family(controls=controls, base=qwen_base(), vae=StandInVAE(16, video=True), grid=2)


def unet(control: ControlBase, shape: str = "tiny") -> Family:
    """With a base of that one of `SHAPES`."""
    return Family(controls=from_host(control), base=unet_base(shape))


def host_read(tensors: Tensors) -> ControlBase:
    """By the host's own loader."""
    control = comfy.controlnet.load_controlnet_state_dict(dict(tensors))
    assert control is not None
    return control


TINY, ADAPTER = SHAPES["tiny"].config, replace(NARROW["full"], channels=(64, 128, 256, 256))
FAMILIES: Mapping[str, Callable[[], Family]] = {
    "SD3": lambda: sd3(sd3_tensors(), "SD3"),
    "SD3 inpaint": lambda: sd3(sd3_tensors(17), "SD3_inpaint"),
    "SD3.5 blur": lambda: sd3(sd35_tensors(0), "SD35_blur"),
    "SD3.5 canny": lambda: sd3(sd35_tensors(1, large=True), "SD35_canny"),
    "SD3.5 depth": lambda: sd3(sd35_tensors(2), "SD35_depth"),
    "Flux XLabs": lambda: flux(xlabs_tensors(), "xlabs", latent=False),
    "Flux MistoLine": lambda: flux(mistoline_tensors(), "mistoline", latent=False),
    "Flux InstantX": lambda: flux(instantx_tensors(), "instantx", latent=True),
    "Flux Union": flux_union,
    "Flux AliMama": lambda: flux(instantx_tensors(control_latent_channels=17), "alimama", latent=True),
    "Qwen InstantX": lambda: qwen(from_host(qwen_control())),
    "Qwen inpaint": lambda: qwen(from_host(qwen_control(4))),
    "Qwen Fun": lambda: qwen(from_file(qwen_fun_tensors(), "qwen_fun")),
    "HunyuanDiT": lambda: Family(controls=from_host(hunyuan_control()), base=hunyuan_base(), vae=StandInVAE(4), grid=2),
    "Stable Cascade": lambda: Family(
        controls=from_host(cascade_control()), base=cascade_base(), size=(5, 7), small=(4, 4)
    ),
    "Stable Diffusion": lambda: unet(host_read(control_tensors(TINY))),
    "SD union": union_family,
    "Control-LoRA": lambda: unet(ControlLora(control_lora_tensors(TINY))),
    "T2I-Adapter": lambda: unet(host_read(adapter_tensors(ADAPTER)), "SD 1.x"),
}
