"""Narrow ControlNets of every family that the host knows, on its own classes: random weights, base models, a VAE.

Wherever the host's loader takes its widths from the file, there is a file. It gives Qwen's InstantX, HunyuanDiT and
Stable Cascade the public files' widths whatever a file holds: those are built from the classes, and wrapped as the
loader does.

Shapes: B latents, C channels, H W latent, h w pixels. One evaluation has R = chunks * B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.cldm.dit_embedder
import comfy.cldm.mmdit
import comfy.controlnet
import comfy.latent_formats
import comfy.ldm.cascade.controlnet
import comfy.ldm.flux.controlnet
import comfy.ldm.hydit.controlnet
import comfy.ldm.qwen_image.controlnet
import comfy.model_management
import comfy.ops
import comfy.sampler_helpers
import comfy.samplers
import comfy.supported_models
import comfy.utils
import torch
import torch.nn.functional as F
from comfy.controlnet import ControlBase, ControlLora, ControlNet, T2IAdapter
from comfy.model_base import BaseModel
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from controlnet_kit.cn_core.networks.config import UNetConfig
from random_adapters import NARROW, adapter_tensors
from random_loras import control_lora_tensors
from random_models import (
    SHAPES,
    Conditioning,
    Shape,
    Tensors,
    control_tensors,
    controlnet_file,
    host_load,
    host_model,
    our_apply,
    our_load,
    prompts,
    randomise_,
)
from torch import Tensor, nn

import nodes

Residuals = dict[str, list[Any]]
"""The host's."""

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


class StandInVAE:
    """Averages of 8 x 8 pixels, mixed into latent channels; remembers what it was given."""

    def __init__(self, channels: int, *, video: bool = False) -> None:
        self.mix = torch.randn(3, channels, generator=torch.Generator().manual_seed(channels))
        self.video = video
        self.given: list[Tensor] = []

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """B h w 3 in [0, 1] -> B C H W, of video B C 1 H W."""
        self.given.append(pixel_samples)
        means = F.avg_pool2d(pixel_samples.movedim(-1, 1), 8).movedim(1, -1)
        latents = ((2 * means - 1) @ self.mix).movedim(-1, 1)
        return latents.unsqueeze(2) if self.video else latents

    def spacial_compression_encode(self) -> int:
        """Pixels for each latent position."""
        return 8


@dataclass(frozen=True, kw_only=True)
class Base:
    """What is sampled."""

    model: ModelPatcher
    prompts: tuple[Conditioning, Conditioning]
    channels: int
    video: bool = False
    """Latents have a dimension of frames."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One network behind the host's control and behind ours, and what goes with it."""

    host: ControlBase
    ours: ControlBase
    """From our loader where there is a file, else the host's, which our Apply takes as well."""
    base: Base
    vae: StandInVAE | None = None
    grid: int = 1
    """Latent positions for each of the residuals' tokens; 2 for transformers."""

    def host_controlled(
        self, image: Tensor, strength: float = 1.0, *, after: Sequence[Conditioning] | None = None
    ) -> tuple[Conditioning, Conditioning]:
        """ControlNetApplyAdvanced, `after` another control's conditioning."""
        positive, negative = after or self.base.prompts
        node = nodes.ControlNetApplyAdvanced()
        return node.apply_controlnet(positive, negative, self.host, image, strength, 0.0, 1.0, vae=self.vae)

    def controlled(
        self, image: Tensor, strength: float = 1.0, *, after: Sequence[Conditioning] | None = None, **inputs: Any
    ) -> tuple[Conditioning, Conditioning]:
        """ApplyControlNet."""
        positive, negative = after or self.base.prompts
        return our_apply(positive, negative, self.ours, image, strength, **({"vae": self.vae} | inputs))

    def latent(self, batch: int, size: tuple[int, int]) -> Tensor:
        """Noise."""
        shape = (batch, self.base.channels, *([1] if self.base.video else []), *size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(sum(size)))

    def asked(
        self,
        controlled: Sequence[Conditioning],
        *,
        batch: int = 1,
        size: tuple[int, int] = (8, 8),
        options: Mapping[str, Any] | None = None,
        finish: bool = True,
    ) -> Residuals | None:
        """One evaluation, the positive prompt's chunk before the negative one's, as the host's sampler asks for it."""
        control, model, x = controlled[0][0][1]["control"], self.base.model.model, self.latent(batch, size)
        sigma = torch.full((2 * batch,), float(model.model_sampling.percent_to_sigma(0.4)))
        transformer_options = {"cond_or_uncond": [0, 1], "uuids": [1, 2], **(options or {})}
        with torch.inference_mode():
            control.pre_run(model, model.model_sampling.percent_to_sigma)
            cond = {**evaluated(model, controlled, x), "transformer_options": transformer_options}
            found = control.get_control(torch.cat([x, x]), sigma, cond, 2, transformer_options)
            if finish:
                control.cleanup()
        return found

    def sampled(
        self, controlled: Sequence[Conditioning], *, batch: int = 1, size: tuple[int, int] = (8, 8), steps: int = 2
    ) -> Tensor:
        """The host's KSampler node from an empty latent."""
        latent = {"samples": torch.zeros_like(self.latent(batch, size))}
        with torch.inference_mode():
            out = nodes.KSampler().sample(self.base.model, 5, steps, 4.0, "euler", "simple", *controlled, latent)
        return out[0]["samples"]


def evaluated(model: BaseModel, conditionings: Sequence[Conditioning], x: Tensor) -> dict[str, Any]:
    """What the host's sampler makes of prompts for one evaluation: c_crossattn, y, ... with R rows each."""
    chunks: list[Any] = []
    for kind, conditioning in zip(("positive", "negative"), conditionings, strict=True):
        conds = comfy.sampler_helpers.convert_cond(conditioning)
        conds = comfy.samplers.encode_model_conds(model.extra_conds, conds, x, x.device, kind, latent_image=x)
        chunks.append({key: cond.process_cond(len(x), area=None) for key, cond in conds[0]["model_conds"].items()})
    return comfy.samplers.cond_cat(chunks)


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
    randomise_(model.diffusion_model, seed=2)
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
    """Of a network with these weights; all of them act."""
    return dict(randomise_(module, seed).state_dict())


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
        device=None,
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
    device = comfy.model_management.get_torch_device()
    return ControlNet(
        randomise_(network, seed=7).eval(),
        compression_ratio=1,
        latent_format=latent_format,
        load_device=device,
        **options,
    )


def qwen_control(extra_channels: int = 0) -> ControlNet:
    """InstantX's; with 4 more channels the one for inpainting."""
    network = comfy.ldm.qwen_image.controlnet.QwenImageControlNetModel(
        extra_condition_channels=extra_channels, num_layers=2, **QWEN, **FLOAT32
    )
    return wrapped(network, comfy.latent_formats.Wan21(), concat_mask=extra_channels > 0, extra_conds=[])


def hunyuan_control() -> ControlNet:
    """All its 19 blocks."""
    network = comfy.ldm.hydit.controlnet.HunYuanControlNet(**HUNYUAN, **FLOAT32)
    names = ["text_embedding_mask", "encoder_hidden_states_t5", "text_embedding_mask_t5", "image_meta_size", "style"]
    names += ["cos_cis_img", "sin_cis_img"]
    return wrapped(network, comfy.latent_formats.SDXL(), extra_conds=names)


def cascade_control() -> T2IAdapter:
    """On the real backbone, which is not to be had narrower."""
    blocks = [0, 4, 8, 12, 51, 55, 59, 63]
    network = comfy.ldm.cascade.controlnet.ControlNet(c_in=3, c_proj=64, proj_blocks=blocks).eval()
    randomise_(network.projections, seed=7)
    return T2IAdapter(network, network.input_channels, 32, "bilinear")


def from_file(tensors: Tensors, name: str) -> dict[str, ControlBase]:
    """Both loaders on one file."""
    file = controlnet_file(tensors, f"{name}.safetensors".replace(" ", "_"))
    return {"host": host_load(file), "ours": our_load(file)}


def from_host(control: ControlBase) -> dict[str, ControlBase]:
    """The host's control in its node and in ours."""
    return {"host": control, "ours": control}


UNION = UNetConfig(
    channel_mult=(1, 1),
    num_res_blocks=(1, 1),
    transformer_depth=(0, 1),
    context_dim=64,
    adm_in_channels=None,
    use_linear_in_transformer=True,
)
"""320 channels, which the host's union network has in any case; otherwise as little as possible."""


def union_family() -> Family:
    """xinsir's."""
    network = comfy.cldm.cldm.ControlNet(
        **{"image_size": 32, "in_channels": 4, "model_channels": 320, "hint_channels": 3, "num_res_blocks": [1, 1]},
        **{"channel_mult": (1, 1), "transformer_depth": [0, 1], "transformer_depth_middle": 1, "context_dim": 64},
        **{"use_spatial_transformer": True, "use_linear_in_transformer": True, "legacy": False},
        **{"num_head_channels": 64, "union_controlnet_num_control_type": 6, **FLOAT32},
    )
    control = ControlNet(randomise_(network, seed=7), load_device=comfy.model_management.get_torch_device())
    control.set_extra_arg("control_type", [3])
    shape = Shape(config=UNION, host=comfy.supported_models.supported_models_base.BASE)
    return Family(**from_host(control), base=Base(model=host_model(shape), prompts=prompts(shape), channels=4))


def sd3(tensors: Tensors, name: str) -> Family:
    """SD3 and SD3.5."""
    return Family(**from_file(tensors, name), base=sd3_base(), vae=StandInVAE(16), grid=2)


def flux(tensors: Tensors, name: str, *, latent: bool) -> Family:
    """With a `latent` for a hint, or with pixels."""
    return Family(**from_file(tensors, name), base=flux_base(), vae=StandInVAE(16) if latent else None, grid=2)


def flux_union() -> Family:
    """With type 4, a pose."""
    family = flux(instantx_tensors(num_union_modes=10), "union", latent=True)
    for control in (family.host, family.ours):
        control.set_extra_arg("control_type", [4])
    return family


def qwen(controls: dict[str, ControlBase]) -> Family:
    """Latents with a dimension of frames."""
    return Family(**controls, base=qwen_base(), vae=StandInVAE(16, video=True), grid=2)


def unet(control: ControlBase) -> Family:
    """Of the shape of SD 1.x."""
    return Family(**from_host(control), base=unet_base("SD 1.x"))


def host_read(tensors: Tensors) -> ControlBase:
    """By the host's own loader."""
    control = comfy.controlnet.load_controlnet_state_dict(dict(tensors))
    assert control is not None
    return control


SD1 = SHAPES["SD 1.x"].config
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
    "HunyuanDiT": lambda: Family(**from_host(hunyuan_control()), base=hunyuan_base(), vae=StandInVAE(4), grid=2),
    "Stable Cascade": lambda: Family(**from_host(cascade_control()), base=cascade_base()),
    "SD 1.x": lambda: unet(host_read(control_tensors(SD1))),
    "SD union": union_family,
    "Control-LoRA": lambda: unet(ControlLora(control_lora_tensors(SD1))),
    "T2I-Adapter": lambda: unet(host_read(adapter_tensors(replace(NARROW["full"], channels=(64, 128, 256, 256))))),
}
