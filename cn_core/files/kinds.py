"""Kinds of networks that files hold; and those that this pack's host runs, by the keys that it knows them by too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..control_types import names
from .detect import describe_foreign


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A network, as far as its file tells."""

    kind: str
    """ControlNet, ControlNet-Union, Control-LoRA, T2I-Adapter, ...; or what else the file is: "a VAE"."""
    family: str | None = None
    layout: str | None = None
    control_types: tuple[str, ...] = ()
    hint_encoder: str | None = None
    hint_channels: int | None = None
    difference: bool = False
    runs: str | None = "ComfyUI"
    """Who runs it; None: nobody, it is no ControlNet."""
    notes: tuple[str, ...] = ()
    """What a user has to know of this kind."""
    faults: str | None = None
    """How its weights differ from what the network needs."""
    besides: int = 0
    """Weights in the file that are no part of the network."""


def flux_union(tensors: Mapping[str, Tensor], name: str) -> Kind | None:  # noqa: ARG001
    """InstantX's and Shakker's unions: the table of modes has a row for each type."""
    modes = tensors.get("controlnet_mode_embedder.weight", tensors.get("controlnet_mode_embedder.fc.weight"))
    if modes is None or modes.ndim != 2 or "controlnet_x_embedder.weight" not in tensors:
        return None
    types = names("Flux", len(modes))
    return Kind(kind="ControlNet-Union", family="Flux (InstantX)", layout="diffusers", control_types=types)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A kind told by keys that must all be there."""

    keys: tuple[str, ...]
    kind: Kind


PATCH = ("It changes the model instead of giving residuals; ComfyUI keeps such files in models/model_patches.",)
LATENT = ("Its hint is a latent: connect a VAE to Apply ControlNet.",)
CONTROLNET, X_EMBEDDER = "controlnet_blocks.0.weight", "controlnet_x_embedder.weight"
HOSTS = (
    Row(keys=("after_proj_list.18.bias",), kind=Kind(kind="ControlNet", family="HunyuanDiT", notes=LATENT)),
    Row(
        keys=(CONTROLNET, "double_blocks.0.img_attn.norm.key_norm.scale"),
        kind=Kind(kind="ControlNet", family="Flux (XLabs)"),
    ),
    Row(
        keys=(CONTROLNET, "pos_embed_input.proj.weight", "transformer_blocks.0.adaLN_modulation.1.bias"),
        kind=Kind(kind="ControlNet", family="SD 3.5", notes=LATENT),
    ),
    Row(
        keys=(CONTROLNET, "pos_embed_input.proj.weight"),
        kind=Kind(kind="ControlNet", family="SD 3", layout="diffusers", notes=LATENT),
    ),
    Row(
        keys=(CONTROLNET, "transformer_blocks.0.img_mlp.net.0.proj.weight"),
        kind=Kind(kind="ControlNet", family="Qwen-Image (InstantX)", layout="diffusers", notes=LATENT),
    ),
    Row(
        keys=(CONTROLNET, X_EMBEDDER),
        kind=Kind(kind="ControlNet", family="Flux (InstantX)", layout="diffusers", notes=LATENT),
    ),
    Row(
        keys=("control_blocks.0.after_proj.weight", "control_img_in.weight"),
        kind=Kind(kind="ControlNet", family="Qwen-Image (Fun)", notes=LATENT),
    ),
    Row(keys=("controlnet_blocks.0.linear.weight",), kind=Kind(kind="ControlNet", family="Flux (MistoLine)")),
    Row(keys=("backbone.0.0.weight",), kind=Kind(kind="ControlNet", family="Stable Cascade")),
    Row(keys=("backbone.10.blocks.0.weight",), kind=Kind(kind="ControlNet", family="Stable Cascade")),
    Row(
        keys=("lllite_conditioning1.conv1.weight",),
        kind=Kind(kind="ControlLLLite (model patch)", family="Anima", notes=PATCH),
    ),
    Row(
        keys=("controlnet_blocks.0.y_rms.weight",),
        kind=Kind(kind="DiffSynth ControlNet (model patch)", family="Qwen-Image", notes=PATCH),
    ),
    Row(
        keys=("control_all_x_embedder.2-1.weight",),
        kind=Kind(kind="Fun ControlNet (model patch)", family="Z-Image", notes=PATCH),
    ),
    Row(
        keys=("controlnet_patch_embedding.weight",),
        kind=Kind(kind="Uni3C ControlNet (model patch)", family="Wan", notes=PATCH),
    ),
)
"""In the host's own order; its keys."""
OTHERS = ("a Control-LoRA", "a ControlLLLite", "a ControlNet-Union", "a ControlNet of another kind", "a T2I-Adapter")
"""Of `describe_foreign`: what the host may still be able to run."""


def host_kind(tensors: Mapping[str, Tensor], name: str) -> Kind | None:  # noqa: ARG001
    """Networks that this pack hands to its host."""
    return next((row.kind for row in HOSTS if all(key in tensors for key in row.keys)), None)


def foreign(tensors: Mapping[str, Tensor], name: str) -> Kind:  # noqa: ARG001
    """Everything else."""
    what = describe_foreign(tensors)
    return Kind(kind=what, runs="ComfyUI, perhaps" if what in OTHERS else None)
