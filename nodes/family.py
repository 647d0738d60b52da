"""Does this ControlNet fit this model? Asked before the first step, so that no run dies in the middle of a matrix."""

from __future__ import annotations

from typing import Any

from comfy.model_base import BaseModel
from torch import nn

from ..cn_core.errors import FamilyMismatchError
from ..cn_core.networks.config import SD1, SD2, SDXL, UNetConfig

FAMILY_BY_CONTEXT = {SD1.context_dim: "SD 1.x", SD2.context_dim: "SD 2.x", SDXL.context_dim: "SDXL"}
"""Families by the width of their text tokens."""


def check_family(name: str, family: str, config: UNetConfig, model: BaseModel) -> None:
    """Raise FamilyMismatchError unless a ControlNet of `config` can control `model`.

    Compared are the widths of text tokens, of the vector y and of the latent: an inpainting model's further input
    channels are no part of the latent, and the ControlNet does not see them.
    """
    unet, latent_channels = model.model_config.unet_config, model.latent_format.latent_channels
    who = f"{name} is an {family} ControlNet"
    if not unet.get("use_spatial_transformer"):
        kind = unet.get("image_model") or type(model).__name__
        raise FamilyMismatchError(
            f"{who} (context {config.context_dim}); the model ({kind}) is not a Stable Diffusion UNet. "
            "Load a ControlNet made for that model."
        )
    context, y = unet.get("context_dim"), unet.get("adm_in_channels")
    if context != config.context_dim:
        theirs = FAMILY_BY_CONTEXT.get(context)
        raise FamilyMismatchError(
            f"{who} (context {config.context_dim}); the model takes {context}{f' ({theirs})' if theirs else ''}. "
            f"Load a ControlNet made for {theirs or 'that model'}."
        )
    if config.adm_in_channels not in (None, y):
        raise FamilyMismatchError(
            f"{who} (vector y of width {config.adm_in_channels}); the model has {y or 'none'}. "
            "Load a ControlNet made for that model."
        )
    if config.in_channels != latent_channels:
        raise FamilyMismatchError(
            f"{who} for latents of {config.in_channels} channels; the model's have {latent_channels}. "
            "Load a ControlNet made for that model."
        )


def check_widths(who: str, widths: tuple[int, ...], model: BaseModel) -> None:
    """Raise FamilyMismatchError unless `model` is a UNet with these channels at its levels, and two blocks in each.

    That is where features of a T2I-Adapter are added; `who` begins the message: "x.pth is an SDXL T2I-Adapter".
    """
    unet = model.model_config.unet_config
    theirs, made_for = unet_widths(unet), ", ".join(map(str, widths))
    if theirs is None:
        kind = unet.get("image_model") or type(model).__name__
        raise FamilyMismatchError(
            f"{who} (widths {made_for}); the model ({kind}) is not a Stable Diffusion UNet. "
            "Load a network made for that model."
        )
    if theirs != widths or set(unet["num_res_blocks"]) != {2}:
        raise FamilyMismatchError(
            f"{who} (widths {made_for}); the model's UNet has {', '.join(map(str, theirs))} "
            f"and {', '.join(map(str, unet['num_res_blocks']))} blocks per level. Load a network made for that model."
        )


def unet_widths(unet: dict[str, Any]) -> tuple[int, ...] | None:
    """Channels of each level of a Stable Diffusion UNet from the host's configuration; None for other models."""
    if not unet.get("use_spatial_transformer"):
        return None
    return tuple(unet["model_channels"] * multiple for multiple in unet["channel_mult"])


def check_tokens(who: str, network: nn.Module, model: BaseModel) -> None:
    """Raise FamilyMismatchError unless `model` is a transformer with tokens and texts of the same widths.

    `who` begins the message: "x.pth is a ControlNet for Flux". Models whose widths the host's classes do not tell pass.
    """
    unet, own, theirs = model.model_config.unet_config, token_widths(network), token_widths(model.diffusion_model)
    kind = unet.get("image_model") or type(model).__name__
    if unet.get("use_spatial_transformer"):
        raise FamilyMismatchError(f"{who}; the model ({kind}) is a UNet. Load a ControlNet made for that model.")
    for what, ours, needed in zip(("tokens", "texts"), own, theirs, strict=True):
        if None not in (ours, needed) and ours != needed:
            raise FamilyMismatchError(
                f"{who} ({what} of width {ours}); the model ({kind}) has {needed}. "
                "Load a ControlNet made for that model."
            )


def token_widths(network: Any) -> tuple[int | None, int | None]:
    """Of the picture's tokens and of texts before they are embedded, as far as a class of the host tells."""
    embedder = getattr(network, "txt_in", None) or getattr(network, "context_embedder", None)
    first = getattr(getattr(network, "control_img_in", None), "out_features", None)
    width = getattr(network, "hidden_size", None) or getattr(network, "inner_dim", None) or first
    return width, getattr(embedder, "in_features", None)
