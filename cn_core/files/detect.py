"""What is in a file: the ControlNets that `cn_core` runs, told from everything else by the names of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..networks.config import UNetConfig
from ..networks.hint_encoder import HintEncoderKind
from . import inference

Layout = Literal["ldm", "diffusers"]


@dataclass(frozen=True, kw_only=True)
class Detected:
    """A ControlNet of Stable Diffusion's shape, as it lies in a file."""

    family: str
    """SD 1.x, SD 2.x, SDXL or SD-shaped."""
    layout: Layout
    prefix: str
    """What every key of the ControlNet begins with: "" or "control_model."."""
    difference: bool
    """The copied weights are stored as differences from the base model's."""
    config: UNetConfig
    hint_channels: int
    hint_encoder_kind: HintEncoderKind
    control_types: int = 0
    """How many types of hint a union network tells apart; 0: it is none."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One row of the table: a layout, and the keys without which a file is not of it."""

    layout: Layout
    names: inference.Names
    hint: str
    """The hint encoder's first convolution."""
    prefix: str = ""
    keys: tuple[str, ...]


LDM_KEYS = ("zero_convs.0.0.weight", "middle_block_out.0.weight", "time_embed.0.weight")
DIFFUSERS_KEYS = ("controlnet_down_blocks.0.weight", "controlnet_mid_block.weight", "time_embedding.linear_1.weight")
LDM_HINT, DIFFUSERS_HINT = "input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"
SIGNATURES = (
    Signature(layout="ldm", names=inference.LDM, hint=LDM_HINT, prefix="control_model.", keys=LDM_KEYS),
    Signature(layout="ldm", names=inference.LDM, hint=LDM_HINT, keys=LDM_KEYS),
    Signature(layout="diffusers", names=inference.DIFFUSERS, hint=DIFFUSERS_HINT, keys=DIFFUSERS_KEYS),
)
HINT_ENCODERS: dict[tuple[int, ...], HintEncoderKind] = {(16, 3, 3): "released", (16, 4, 4): "paper"}
"""Output channels and kernel of the first convolution."""
UNION_KEYS = ("task_embedding", "spatial_ch_projs.weight", "control_add_embedding.linear_1.weight")
"""What a union network has besides, in either layout: all of them, or none."""
RELATIVES = (
    "lora_controlnet",  # Control-LoRA
    "lora_layer",  # CtrLoRA
    "lllite",  # ControlLLLite
    "motion_modules",  # SparseCtrl
    "temporal_",  # ControlNets of Stable Video Diffusion
    "class_embedding.",  # ControlNets of SD 2.x unCLIP
)
"""Parts of keys that only networks related to ControlNet have."""

FOREIGN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a Control-LoRA", ("lora_controlnet",)),
    ("a ControlLLLite", ("lllite",)),
    ("a ControlNet-Union", ("task_embedding", "control_add_embedding.")),
    ("a LoRA", ("lora_down.",)),
    ("a LoRA", ("lora_A.",)),
    ("a LoRA", ("lora.down.",)),
    ("a LoRA", ("hada_w1_a",)),
    ("a LoRA", ("lokr_w1",)),
    ("an IP-Adapter", ("image_proj.", "ip_adapter.")),
    ("a full checkpoint", ("model.diffusion_model.", "first_stage_model.")),
    ("a ControlNet of another kind", ("controlnet_cond_embedding.",)),
    ("a ControlNet of another kind", ("controlnet_blocks.",)),
    ("a ControlNet of another kind", ("zero_convs.", "input_hint_block.")),
    ("a T2I-Adapter", ("body.0.in_conv.",)),
    ("a T2I-Adapter", ("body.0.block1.",)),
    ("a T2I-Adapter", ("body.0.resnets.0.block1.",)),
    ("a T2I style adapter", ("style_embedding", "ln_post.")),
    ("a diffusion model", ("model.diffusion_model.",)),
    ("a UNet", ("input_blocks.0.0.", "output_blocks.")),
    ("a UNet", ("down_blocks.", "up_blocks.", "time_embedding.")),
    ("a VAE", ("encoder.conv_in.", "decoder.conv_in.")),
    ("a VAE", ("taesd_decoder.",)),
    ("a text encoder", ("text_model.embeddings.",)),
    ("a textual inversion", ("emb_params",)),
)
"""(what it is, parts of keys that must all occur), specific before broad."""


def detect(state_dict: Mapping[str, Tensor]) -> Detected | None:
    """The ControlNet in a file, or None when the file holds no ControlNet that `cn_core` runs."""
    if any(part in key for key in state_dict for part in RELATIVES):
        return None
    for row in SIGNATURES:
        if all(row.prefix + key in state_dict for key in (*row.keys, row.hint)):
            return read(state_dict, row)
    return None


def read(state_dict: Mapping[str, Tensor], row: Signature) -> Detected | None:
    """The details of a file that has the keys of `row`."""
    tensors = {key.removeprefix(row.prefix): tensor for key, tensor in state_dict.items() if key.startswith(row.prefix)}
    config = inference.infer(tensors, row.names)
    hint = tuple(tensors[row.hint].shape)
    kind = HINT_ENCODERS.get((*hint[:1], *hint[2:]))
    control_types = count_types(tensors)
    if config is None or kind is None or control_types is None:
        return None
    return Detected(
        family=inference.family(config),
        layout=row.layout,
        prefix=row.prefix,
        difference=row.layout == "ldm" and "difference" in state_dict,
        config=config,
        hint_channels=hint[1],
        hint_encoder_kind=kind,
        control_types=control_types,
    )


def count_types(tensors: Mapping[str, Tensor]) -> int | None:
    """How many types a union network has, 0 for any other network, None for something between the two."""
    missing = [key for key in UNION_KEYS if key not in tensors]
    if missing:
        return 0 if len(missing) == len(UNION_KEYS) else None
    table = tensors[UNION_KEYS[0]]
    return len(table) if table.ndim == 2 and len(table) else None


def describe_foreign(state_dict: Mapping[str, Tensor]) -> str:
    """What a file that is no ControlNet of ours holds, for an error message: "a LoRA", "a VAE", ..."""
    for what, parts in FOREIGN:
        if all(any(part in key for key in state_dict) for part in parts):
            return what
    return f"an unknown file (first keys: {', '.join(list(state_dict)[:3]) or 'none'})"
