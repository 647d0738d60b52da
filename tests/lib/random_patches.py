"""Small transformers with random weights on the host's own classes, the controls that patch them, and their VAEs.

The host's loader gives Z-Image's and Qwen's control networks the public files' width whatever a file holds: so those
two are built from its classes here, and put into a patcher as the loader does. The others are loaded from files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import comfy.ldm.anima.lllite
import comfy.ldm.lumina.controlnet
import comfy.ldm.models.autoencoder
import comfy.ldm.wan.uni3c
import comfy.ldm.wan.vae
import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import folder_paths
import torch
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from comfy_extras import nodes_model_patch as host
from controlnet_kit.cn_core.modulation.window import Window
from controlnet_kit.nodes.model_patches import (
    ANIMA,
    QWEN,
    UNI3C,
    Z_IMAGE,
    PatchControl,
    apply_patch,
    load_patch,
)
from random_models import Tensors, randomise_
from safetensors.torch import save_file
from torch import Tensor, nn

import nodes

FLOAT32: dict[str, Any] = {"operations": comfy.ops.manual_cast, "dtype": torch.float32}
WIDTH = {Z_IMAGE: 256, QWEN: 64, UNI3C: 96, ANIMA: 96}
"""Z-Image's modulation is of width 256."""
FRAMES = 3
"""Of the latent, in videos."""
ALL = Window()
"""Always open."""
Z_IMAGE_LAYERS: dict[str, Any] = {"dim": WIDTH[Z_IMAGE], "n_heads": 4, "n_kv_heads": 4} | {
    "multiple_of": 32,
    "ffn_dim_multiplier": 0.25,
}
SUPPORTED: Mapping[str, type[comfy.supported_models_base.BASE]] = {
    Z_IMAGE: comfy.supported_models.ZImage,
    QWEN: comfy.supported_models.QwenImage,
    UNI3C: comfy.supported_models.WAN21_T2V,
    ANIMA: comfy.supported_models.Anima,
}
TRANSFORMERS: Mapping[str, dict[str, Any]] = {
    # 30 layers: the host counts on it when it divides the control's layers among them.
    Z_IMAGE: {"image_model": "lumina2", "in_channels": 16, "cap_feat_dim": 32, "n_layers": 30, "qk_norm": True}
    | {"axes_dims": [16, 24, 24], "axes_lens": [64, 64, 64], "rope_theta": 256.0, "z_image_modulation": True}
    | {"time_scale": 1000.0, "pad_tokens_multiple": 32, **Z_IMAGE_LAYERS},
    QWEN: {"image_model": "qwen_image", "num_layers": 3, "joint_attention_dim": 32}
    | {"attention_head_dim": 32, "num_attention_heads": 2, "axes_dims_rope": (8, 12, 12)},
    UNI3C: {"image_model": "wan2.1", "model_type": "t2v", "dim": 96, "num_heads": 4, "ffn_dim": 96}
    | {"num_layers": 3, "freq_dim": 64, "text_dim": 32},
    ANIMA: {"image_model": "anima", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16}
    | {"out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 96, "num_blocks": 2}
    | {"num_heads": 4, "crossattn_emb_channels": 32, "pos_emb_cls": "rope3d", "rope_enable_fps_modulation": False},
}


@dataclass(frozen=True, kw_only=True)
class Patched:
    """A model, a control that patches it, and what goes with them."""

    kind: str
    model: ModelPatcher
    control: PatchControl
    vae: Any


def patcher(module: nn.Module) -> ModelPatcher:
    """As the host's loaders do."""
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return CoreModelPatcher(module, load_device=device, offload_device=offload)


def host_transformer(kind: str, seed: int = 2) -> ModelPatcher:
    """A MODEL of the host's own class for the family, narrow."""
    config = SUPPORTED[kind](TRANSFORMERS[kind])
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    if kind == ANIMA:
        del model.diffusion_model.llm_adapter  # 130 million parameters, for prompts with T5 tokens only
    randomise_(model.diffusion_model, seed)
    return patcher(model.eval())


def picture_vae() -> comfy.sd.VAE:
    """16 channels, as Flux's."""
    config = {"double_z": True, "z_channels": 16, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32}
    config |= {"ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}
    network = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=config, embed_dim=16)
    weights = dict(randomise_(network, seed=3).state_dict())
    vae = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": config, "embed_dim": 16}})
    vae.latent_channels = 16  # which the host learns from files only
    return vae


def video_vae() -> comfy.sd.VAE:
    """Wan's, 16 channels, 4 frames in one; also Qwen's."""
    shape: dict[str, Any] = {"dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    network = comfy.ldm.wan.vae.WanVAE(**shape, temperal_downsample=[False, True, True], dropout=0.0)
    return comfy.sd.VAE(sd=dict(randomise_(network, seed=4).state_dict()))


def patch_file(tensors: Tensors, name: str) -> Path:
    """Write into the host's folder of model patches."""
    folder = Path(folder_paths.get_folder_paths("model_patches")[0])
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    return folder / name


def uni3c_tensors(width: int = 96, seed: int = 5) -> Tensors:
    """A control of two layers; 16 heads, as the host assumes."""
    sizes = {"conv_out_dim": 32, "dim": 96, "ffn_dim": 64, "num_layers": 2, "mid_channels": 16}
    network = comfy.ldm.wan.uni3c.WanUni3CControlnet(**sizes, time_embed_dim=width, out_proj_dim=width, **FLOAT32)
    return dict(randomise_(network, seed).state_dict())


def anima_tensors(width: int = 96, seed: int = 5) -> Tensors:
    """All five places of the first block."""
    places = ("self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "cross_attn_q_proj", "mlp_layer1")
    module = partial(comfy.ldm.anima.lllite.AnimaLLLiteModule, width, 16, 16, **FLOAT32)
    conditioning = comfy.ldm.anima.lllite.AnimaLLLiteConditioning(3, 16, 16, 1, (), **FLOAT32)
    modules = {f"lllite_dit_blocks_0_{place}": module() for place in places} | {"lllite_conditioning1": conditioning}
    return dict(randomise_(nn.ModuleDict(modules), seed).state_dict())


def z_image_control(seed: int = 5, **shape: Any) -> PatchControl:
    """The shape's defaults are those of version 1."""
    network = comfy.ldm.lumina.controlnet.ZImage_Control(**Z_IMAGE_LAYERS, **shape, **FLOAT32)
    return PatchControl(name="z_image", kind=Z_IMAGE, patcher=patcher(randomise_(network, seed)))


def control(kind: str, seed: int = 5) -> PatchControl:
    """A small one of the kind, from a file where the host can load it."""
    if kind == Z_IMAGE:
        return z_image_control(seed)
    if kind == QWEN:
        network = host.QwenImageBlockWiseControlNet(num_layers=3, dim=WIDTH[kind], **FLOAT32)
        return PatchControl(name="qwen", kind=kind, patcher=patcher(randomise_(network, seed)))
    tensors = uni3c_tensors(seed=seed) if kind == UNI3C else anima_tensors(seed=seed)
    return load_patch(patch_file(tensors, f"random_{seed}.safetensors"), kind)


def random_patched(kind: str) -> Patched:
    """Everything of a family."""
    vae = picture_vae() if kind == Z_IMAGE else video_vae()
    return Patched(kind=kind, model=host_transformer(kind), control=control(kind), vae=vae)


def host_apply_patch(
    patched: Patched, image: Tensor, strength: float = 1.0, window: tuple[float, float] = (0.0, 1.0)
) -> ModelPatcher:
    """The host's own node for the kind; some have no window."""
    model, vae, patch = patched.model, patched.vae, patched.control.patcher
    if patched.kind == ANIMA:
        return host.AnimaLLLiteApply().apply_patch(model, patch, image, strength, *window)[0]
    if patched.kind == UNI3C:
        return host.WanUni3CControlnetApply().apply_patch(model, patch, vae, image, strength, *window)[0]
    node = host.ZImageFunControlnet if patched.kind == Z_IMAGE else host.QwenImageDiffsynthControlnet
    return node().diffsynth_controlnet(model, patch, vae, image, strength)[0]


def our_apply_patch(
    patched: Patched, image: Tensor, strength: float = 1.0, window: Window = ALL, mask: Tensor | None = None
) -> ModelPatcher:
    """Ours."""
    return apply_patch(patched.model, patched.control, image, patched.vae, strength, window, mask)


def latent_shape(kind: str, batch: int = 1, size: tuple[int, int] = (8, 8)) -> tuple[int, ...]:
    """Of a video for Wan, of `batch` pictures for the others."""
    return (1, 16, FRAMES, *size) if kind == UNI3C else (batch, 16, *size)


def prompt(seed: int) -> Any:
    """7 tokens of width 32, as all transformers here take them."""
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(1, 7, 32, generator=generator), {"pooled_output": torch.randn(1, 32, generator=generator)}]]


def sample_patched(model: ModelPatcher, shape: tuple[int, ...], *, steps: int = 2, cfg: float = 4.0) -> Tensor:
    """The host's KSampler node from an empty latent of this shape."""
    latent = {"samples": torch.zeros(shape)}
    with torch.inference_mode():
        out = nodes.KSampler().sample(model, 5, steps, cfg, "euler", "simple", prompt(1), prompt(2), latent)
    return out[0]["samples"]
