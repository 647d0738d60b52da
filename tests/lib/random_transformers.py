"""Narrow transformers on the host's own classes with random weights, and ControlNets for them in the public formats.

The host's loader gives Qwen's InstantX, HunyuanDiT and Stable Cascade the public files' widths whatever a file holds:
those are built from the classes, and wrapped as the loader does. For all others there are the tensors of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.cldm.dit_embedder
import comfy.cldm.mmdit
import comfy.latent_formats
import comfy.ldm.cascade.controlnet
import comfy.ldm.flux.controlnet
import comfy.ldm.hydit.controlnet
import comfy.ldm.qwen_image.controlnet
import comfy.model_management
import comfy.ops
import comfy.supported_models
import comfy.utils
import torch
from comfy.controlnet import ControlNet, T2IAdapter
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from random_models import (
    SHAPES,
    Conditioning,
    Tensors,
    host_model,
    prompts,
    randomise_,
)
from torch import Tensor, nn

FLOAT32: dict[str, Any] = {"operations": comfy.ops.disable_weight_init, "dtype": torch.float32}
TEXT = 32
"""Width of text tokens and of the pooled text."""
DEPTH = 2
"""Of SD3's base: its width is 64 times that."""
POOLED_SD3 = 2048
"""The host gives SD3.5's ControlNets this width of the pooled text."""
HUNYUAN: dict[str, Any] = {"hidden_size": 64, "num_heads": 2, "text_states_dim": TEXT, "text_states_dim_t5": 64} | {
    "text_len": 7,
    "text_len_t5": 6,
}
FLUX: dict[str, Any] = {"in_channels": 16, "out_channels": 16, "patch_size": 2, "hidden_size": 128, "num_heads": 1} | {
    **{"vec_in_dim": TEXT, "context_in_dim": TEXT, "mlp_ratio": 4.0, "depth": 3, "depth_single_blocks": 2},
    **{"axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": []},
}
SD3: dict[str, Any] = {"in_channels": 16, "out_channels": 16, "patch_size": 2, "depth": DEPTH, "input_size": None} | {
    **{"adm_in_channels": POOLED_SD3, "num_patches": 4096, "pos_embed_max_size": 64, "pos_embed_scaling_factor": None},
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": TEXT, "out_features": 64 * DEPTH},
    },
}
QWEN: dict[str, Any] = {"in_channels": 64, "joint_attention_dim": TEXT, "attention_head_dim": 32} | {
    **{"num_attention_heads": 2, "axes_dims_rope": (8, 12, 12)},
}
STAGE_C: dict[str, Any] = {"stable_cascade_stage": "c", "c_cond": 64, "c_hidden": [64, 64], "nhead": [2, 2]} | {
    **{"blocks": [[1, 1], [1, 1]], "c_clip_text": TEXT, "c_clip_text_pooled": TEXT},
}


@dataclass(frozen=True, kw_only=True)
class Base:
    """What is sampled."""

    model: ModelPatcher
    prompts: tuple[Conditioning, Conditioning]
    channels: int
    video: bool = False
    """Latents have a dimension of frames."""


def tokens(seed: int, *shape: int) -> Tensor:
    """1, shape."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


def prompt(seed: int, pooled: int = TEXT, **further: Any) -> Conditioning:
    """7 tokens."""
    return [[tokens(seed, 7, TEXT), {"pooled_output": tokens(seed + 1, pooled), **further}]]


def hunyuan_prompt(seed: int) -> Conditioning:
    """Two texts, each with a mask."""
    return prompt(
        seed,
        attention_mask=torch.tensor([[1.0] * 5 + [0.0] * 2]),
        conditioning_mt5xl=tokens(seed + 2, 6, 64),
        attention_mask_mt5xl=torch.tensor([[1.0] * 4 + [0.0] * 2]),
    )


def transformer(config: Any, shape: Mapping[str, Any]) -> ModelPatcher:
    """A MODEL of the host's own class for a family (`config`, of comfy.supported_models), narrow."""
    settings = config(dict(shape))
    settings.set_inference_dtype(torch.float32, None)
    model = settings.get_model({}, "")
    random_tensors(model.diffusion_model, seed=2)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return CoreModelPatcher(model.eval(), load_device=device, offload_device=offload)


def unet_base(name: str) -> Base:
    """A UNet of `SHAPES`."""
    return Base(model=host_model(SHAPES[name]), prompts=prompts(SHAPES[name]), channels=4)


def sd3_base() -> Base:
    """SD3 and SD3.5."""
    model = transformer(comfy.supported_models.SD3, SD3)
    return Base(model=model, prompts=(prompt(1, POOLED_SD3), prompt(5, POOLED_SD3)), channels=16)


def flux_base() -> Base:
    """With guidance."""
    model = transformer(comfy.supported_models.Flux, {"image_model": "flux", **FLUX})
    return Base(model=model, prompts=(prompt(1, guidance=3.0), prompt(5, guidance=4.0)), channels=16)


def qwen_base() -> Base:
    """With a mask for the text, that the ControlNets take."""
    model = transformer(comfy.supported_models.QwenImage, {"image_model": "qwen_image", "num_layers": 3, **QWEN})
    return Base(model=model, prompts=(prompt(1), prompt(5)), channels=16, video=True)


def hunyuan_base() -> Base:
    """40 layers, so that there are 19 skips: the host's ControlNet has that many residuals."""
    model = transformer(comfy.supported_models.HunyuanDiT, {"image_model": "hydit", "depth": 40, **HUNYUAN})
    return Base(model=model, prompts=(hunyuan_prompt(1), hunyuan_prompt(5)), channels=4)


def cascade_base() -> Base:
    """Stage C."""
    model = transformer(comfy.supported_models.Stable_Cascade_C, STAGE_C)
    return Base(model=model, prompts=(prompt(1), prompt(5)), channels=16)


def random_tensors(module: nn.Module, seed: int = 7) -> Tensors:
    """Fill a network, and give its weights; all of them act. SD3's positions are no parameter."""
    for name, buffer in randomise_(module, seed).named_buffers():
        if name == "pos_embed":
            buffer.normal_(generator=torch.Generator().manual_seed(seed))
    return dict(module.state_dict())


def renamed(tensors: Tensors, names: Mapping[str, Any]) -> Tensors:
    """To diffusers' names, by the host's table for the other direction."""
    found, spent = dict[str, Tensor](), set[str]()
    for theirs, place in names.items():
        key, part = (place, None) if isinstance(place, str) else place[:2]
        if key not in tensors or (part is None and key in spent):
            continue
        found[theirs] = tensors[key] if part is None else tensors[key].narrow(*part)
        spent.add(key)
    return found | {key: tensor for key, tensor in tensors.items() if key not in spent}


def sd3_tensors(channels: int = 16) -> Tensors:
    """InstantX's layout: diffusers'."""
    network = comfy.cldm.mmdit.ControlNet(num_blocks=1, control_latent_channels=channels, **SD3, **FLOAT32)
    return renamed(random_tensors(network), comfy.utils.mmdit_to_diffusers({"depth": DEPTH, "num_blocks": 1}))


def sd35_tensors(control_type: int, *, large: bool = False) -> Tensors:
    """Stability's layout; the large model's take their vector from the base."""
    network = comfy.cldm.dit_embedder.ControlNetEmbedder(
        **{"img_size": None, "patch_size": 2, "in_chans": 16, "num_layers": 2, "main_model_double": DEPTH},
        **{"attention_head_dim": 64, "num_attention_heads": DEPTH, "adm_in_channels": POOLED_SD3},
        double_y_emb=large,
        device=torch.device("cpu"),
        **FLOAT32,
    )
    return {**random_tensors(network), "control_type": torch.tensor(control_type)}


def flux_network(**options: Any) -> nn.Module:
    """Two double blocks and one single, if there are any single ones."""
    single = options.pop("single", 0)
    shape = {**FLUX, "depth": 2, "depth_single_blocks": single}
    return comfy.ldm.flux.controlnet.ControlNetFlux(**options, **shape, **FLOAT32)


def xlabs_tensors() -> Tensors:
    """Flux's own names, with its older one for the scale of a norm."""
    tensors = random_tensors(flux_network())
    return {key.replace("_norm.weight", "_norm.scale"): tensor for key, tensor in tensors.items()}


def mistoline_tensors() -> Tensors:
    """The same with another name for the single blocks' residuals."""
    tensors = random_tensors(flux_network(mistoline=True, single=1))
    return {
        key.replace("_norm.weight", "_norm.scale").replace("controlnet_single_blocks", "single_controlnet_blocks"): t
        for key, t in tensors.items()
    }


def instantx_tensors(**options: Any) -> Tensors:
    """Diffusers' names."""
    tensors = random_tensors(flux_network(latent_input=True, single=1, **options))
    shape = {"depth": 2, "depth_single_blocks": 1, "hidden_size": FLUX["hidden_size"]}
    return renamed(tensors, comfy.utils.flux_to_diffusers(shape))


def qwen_fun_tensors() -> Tensors:
    """33 latent channels of hint: the host fills up what is missing."""
    network = comfy.ldm.qwen_image.controlnet.QwenImageFunControlNetModel(
        inner_dim=64, num_attention_heads=2, attention_head_dim=32, **FLOAT32
    )
    return random_tensors(network)


def wrapped(network: nn.Module, latent_format: Any, **options: Any) -> ControlNet:
    """As the host's loader does for hints in latents."""
    options |= {"compression_ratio": 1, "load_device": comfy.model_management.get_torch_device()}
    return ControlNet(randomise_(network, seed=7), latent_format=latent_format, **options)


def qwen_control(extra_channels: int = 0) -> ControlNet:
    """InstantX's; with 4 more channels the one for inpainting."""
    network = comfy.ldm.qwen_image.controlnet.QwenImageControlNetModel(
        extra_condition_channels=extra_channels, num_layers=2, **QWEN, **FLOAT32
    )
    return wrapped(network, comfy.latent_formats.Wan21(), concat_mask=extra_channels > 0, extra_conds=[])


def hunyuan_control() -> ControlNet:
    """All its 19 blocks, in layers that cast."""
    casting: dict[str, Any] = FLOAT32 | {"operations": comfy.ops.manual_cast}
    network = comfy.ldm.hydit.controlnet.HunYuanControlNet(**HUNYUAN, **casting)
    names = ["text_embedding_mask", "encoder_hidden_states_t5", "text_embedding_mask_t5", "image_meta_size", "style"]
    names += ["cos_cis_img", "sin_cis_img"]
    return wrapped(network, comfy.latent_formats.SDXL(), extra_conds=names)


def cascade_control() -> T2IAdapter:
    """On the real backbone, which is not to be had narrower."""
    blocks = [0, 4, 8, 12, 51, 55, 59, 63]
    network = comfy.ldm.cascade.controlnet.ControlNet(c_in=3, c_proj=64, proj_blocks=blocks).eval()
    randomise_(network.projections, seed=7)
    return T2IAdapter(network, network.input_channels, 32, "bilinear")
