"""Small models with random weights in the shapes of the public ones, and the nodes and the sampler to try them with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import comfy.supported_models_base
import folder_paths
import torch
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import SD1, SD2, SDXL, TINY, UNetConfig
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.nodes.apply import ApplyControlNet
from controlnet_kit.nodes.load import LoadControlNet
from safetensors.torch import save_file
from torch import Tensor, nn

import nodes

Tensors = dict[str, Tensor]
Conditioning = list[Any]
"""The host's."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A family with narrow layers; head dimension 64, as the host assumes for widths that it does not know."""

    config: UNetConfig
    host: type[comfy.supported_models_base.BASE]


SHAPES = {
    "SD 1.x": Shape(config=replace(SD1, model_channels=64, num_heads=None), host=comfy.supported_models.SD15),
    "SD 2.x": Shape(config=replace(SD2, model_channels=64), host=comfy.supported_models.SD20),
    "SDXL": Shape(
        config=replace(SDXL, model_channels=64, transformer_depth=(0, 1, 2), transformer_depth_middle=2),
        host=comfy.supported_models.SDXL,
    ),
    "tiny": Shape(config=TINY, host=comfy.supported_models_base.BASE),
}


def randomise_(module: nn.Module, seed: int) -> nn.Module:
    """Weights that keep the variance, scales near 1, small biases: every layer takes part."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel()
            centre = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            scale = 0.1 if parameter.ndim == 1 else fan_in**-0.5
            parameter.copy_(centre + scale * noise)
    return module


def control_tensors(config: UNetConfig, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensors:
    """A ControlNet that has an effect, under bare LDM keys."""
    backend = Backend(operations=comfy.ops.disable_weight_init, dtype=dtype)
    return dict(randomise_(ControlNet(config, backend), seed).state_dict())


def unet_tensors(config: UNetConfig, seed: int = 2) -> Tensors:
    """A UNet under bare LDM keys."""
    return dict(randomise_(UNet(config), seed).state_dict())


def controlnet_file(tensors: Tensors, name: str) -> str:
    """Write into the host's controlnet folder; the name is what loaders take."""
    folder = Path(folder_paths.get_folder_paths("controlnet")[0])
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    return name


def host_model(shape: Shape, tensors: Tensors | None = None) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of the host's own class for the family, on the host's own UNet."""
    tensors = tensors or unet_tensors(shape.config)
    config = shape.host(comfy.model_detection.detect_unet_config(tensors, ""))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(tensors, "")
    model.load_model_weights(dict(tensors), "")
    return comfy.model_patcher.CoreModelPatcher(
        model,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def conditioning(config: UNetConfig, seed: int) -> Conditioning:
    """A prompt of 7 tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(1, 7, config.context_dim, generator=generator)
    return [[tokens, {"pooled_output": torch.randn(1, 1280, generator=generator)}]]


def hint_image(batch: int = 1, height: int = 72, width: int = 64, channels: int = 3, seed: int = 3) -> Tensor:
    """IMAGE: B H W C in [0, 1]."""
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed))


def sample(
    model: comfy.model_patcher.ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    *,
    batch: int = 1,
    size: tuple[int, int] = (8, 8),
    steps: int = 3,
    cfg: float = 4.0,
) -> Tensor:
    """The host's KSampler node from an empty latent."""
    latent = {"samples": torch.zeros(batch, 4, *size)}
    with torch.inference_mode():
        return nodes.KSampler().sample(model, 5, steps, cfg, "euler", "normal", positive, negative, latent)[0][
            "samples"
        ]


def run(node: Any, **inputs: Any) -> Any:
    """The outputs of a V3 node, run as the host runs it."""
    return node.PREPARE_CLASS_CLONE({"hidden_inputs": {}}).execute(**inputs).result


def our_load(name: str, **inputs: Any) -> Any:
    """LoadControlNet."""
    return run(LoadControlNet, control_net_name=name, **inputs)[0]


def our_apply(
    positive: Conditioning,
    negative: Conditioning,
    control_net: Any,
    image: Tensor,
    strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    **inputs: Any,
) -> tuple[Conditioning, Conditioning]:
    """ApplyControlNet; `inputs` are its optional ones."""
    return run(
        ApplyControlNet,
        positive=positive,
        negative=negative,
        control_net=control_net,
        image=image,
        strength=strength,
        start_percent=start_percent,
        end_percent=end_percent,
        **inputs,
    )[:2]


def host_load(name: str) -> Any:
    """ControlNetLoader."""
    return nodes.ControlNetLoader().load_controlnet(name)[0]


def host_apply(
    positive: Conditioning,
    negative: Conditioning,
    control_net: Any,
    image: Tensor,
    strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
) -> tuple[Conditioning, Conditioning]:
    """ControlNetApplyAdvanced."""
    return nodes.ControlNetApplyAdvanced().apply_controlnet(
        positive, negative, control_net, image, strength, start_percent, end_percent
    )


def prompts(shape: Shape) -> tuple[Conditioning, Conditioning]:
    """A positive and a negative one."""
    return conditioning(shape.config, seed=10), conditioning(shape.config, seed=11)


def residuals(control: Any, model: comfy.model_patcher.ModelPatcher, image: Tensor) -> list[Tensor]:
    """One evaluation for positive and negative prompt at an 8x8 latent, as the host's sampler asks for it."""
    config = model.model.model_config.unet_config
    generator = torch.Generator().manual_seed(40)
    latent = torch.randn(2, 4, 8, 8, generator=generator)
    cond = {"c_crossattn": torch.randn(2, 7, config["context_dim"], generator=generator)}
    if (width := config.get("adm_in_channels")) is not None:
        cond["y"] = torch.randn(2, width, generator=generator)
    control = control.copy().set_cond_hint(image.movedim(-1, 1))
    with torch.inference_mode():
        control.pre_run(model.model, model.model.model_sampling.percent_to_sigma)
        found = control.get_control(latent, torch.tensor([3.0, 3.0]), cond, 2, {})
        control.cleanup()
    return [*found["input"], *found["middle"], *found["output"]]
