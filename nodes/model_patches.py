"""Controls that patch the model instead of adding residuals: the files of the folder model_patches, on CONTROL_NET.

The host loads them and runs them. What is ours goes around its patches: when they act (window) and where (effect mask).

Shapes: B latents, N hints, M masks, H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

from ..cn_core.errors import CheckpointError, ControlNetKitError, FamilyMismatchError, HintError
from ..cn_core.modulation.masks import extent, prepare
from ..cn_core.modulation.window import Window
from .boundary import to_image, to_pixels
from .windowed_patch import Gate, WindowedEmbedding, WindowedPatch

FOLDER = "model_patches"
"""The host's name of the folder."""
ANIMA, QWEN, Z_IMAGE, UNI3C = "Anima LLLite", "Qwen DiffSynth", "Z-Image Fun", "Wan Uni3C"
"""The kinds, as messages name them."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Which files are of this kind, and which models they control."""

    key: str
    """A weight that they all have."""
    transformer: str
    """What the host calls the model's network."""
    width: Callable[[Any], int]
    """Of the tokens, from the control's network."""
    model_width: Callable[[Any], int]
    """The same from the model's."""
    needs_vae: bool = True
    """It takes its hint as a latent."""


KINDS = {
    ANIMA: Kind(
        key="lllite_conditioning1.conv1.weight",
        transformer="anima",
        width=lambda network: network.model_dim,
        model_width=lambda transformer: transformer.model_channels,
        needs_vae=False,
    ),
    QWEN: Kind(
        key="controlnet_blocks.0.y_rms.weight",
        transformer="qwen_image",
        width=lambda network: network.img_in.out_features,
        model_width=lambda transformer: transformer.inner_dim,
    ),
    Z_IMAGE: Kind(
        key="control_all_x_embedder.2-1.weight",
        transformer="lumina2",
        width=lambda network: network.control_layers[0].dim,
        model_width=lambda transformer: transformer.dim,
    ),
    UNI3C: Kind(
        key="controlnet_patch_embedding.weight",
        transformer="wan2.1",
        width=lambda network: network.controlnet_blocks[0].norm1.linear.in_features,
        model_width=lambda transformer: transformer.dim,
    ),
}
OTHERS = {
    "feature_embedder.mid_layer_norm.bias": ("USO style projector", "USOStyleReference"),
    "audio_proj.proj1.weight": ("MultiTalk patch", "WanInfiniteTalkToVideo"),
    "project_modules.0.zero_conv.weight": ("SUPIR patch", "SUPIRApply"),
    "model.diffusion_model.project_modules.0.zero_conv.weight": ("SUPIR patch", "SUPIRApply"),
}
"""Model patches that are no controls, by a weight that they have: what they are, and the host's node for them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchControl:
    """A model patch on its way from LoadControlNet to ApplyControlNet."""

    concat_mask: ClassVar[bool] = False
    """The host's inpainting node asks for it before it copies."""

    name: str
    """File name, for messages."""
    kind: str
    """A key of KINDS."""
    patcher: ModelPatcher
    """The host's MODEL_PATCH."""

    def copy(self) -> PatchControl:
        """What every node that takes a ControlNet of the other sort does first: so this raises ControlNetKitError."""
        raise ControlNetKitError(
            f"{self.name} ({self.kind}) patches the model instead of the conditioning, which this node cannot do. "
            "Use this pack's ApplyControlNet and connect its `model`."
        )


def patch_kind(tensors: Container[str]) -> str | None:
    """The kind of model patch that a file with these weights is; None for all other files."""
    kinds = {kind.key: name for name, kind in KINDS.items()} | {key: name for key, (name, _) in OTHERS.items()}
    return next((name for key, name in kinds.items() if key in tensors), None)


def load_patch(path: Path, kind: str) -> PatchControl:
    """With the host's own loader, which takes files of its folder only; raises CheckpointError."""
    from comfy_extras import nodes_model_patch as host  # start-up need not wait for it

    for other, node in OTHERS.values():
        if kind == other:
            raise CheckpointError(
                f"{path.name} is a {kind}, which is no control. Load it with ModelPatchLoader and connect it to {node}."
            )
    folders = [Path(folder) for folder in folder_paths.get_folder_paths(FOLDER)]
    folder = next((folder for folder in folders if path.is_relative_to(folder)), None)
    if folder is None:
        raise CheckpointError(f"{path.name} is a {kind} control, which patches the model. Move it to {folders[0]}.")
    try:
        patcher = host.ModelPatchLoader().load_model_patch(str(path.relative_to(folder)))[0]
    except (LookupError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path.name} looks like {kind}, and ComfyUI's loader fails on it: {error}") from error
    return PatchControl(name=path.name, kind=kind, patcher=patcher)


def apply_patch(
    model: ModelPatcher,
    control: PatchControl,
    image: Tensor,
    vae: Any,
    strength: float,
    window: Window,
    mask: Tensor | None = None,
) -> ModelPatcher:
    """A clone of `model` that follows the hint inside the window, where the mask allows it.

    image: IMAGE, N H W C; for Wan the frames of a video. mask: MASK, or M 1 H W, stretched over the picture; M is 1 or
    B (fewer are taken in turn), for Wan the video's frames (the last one goes on, as the host does with the hint's).
    Raises FamilyMismatchError, HintError, ControlNetKitError.
    """
    hint, masks = to_image(to_pixels(image)), None if mask is None else prepare(mask)
    reach = "everywhere" if masks is None else extent(masks)
    if strength == 0 or reach == "nowhere":
        return model.clone()
    check_fits(control, model)
    check_inputs(control, model, hint, vae)
    patched = patched_by_host(model, control, hint, vae, strength)
    frames = (vae.temporal_compression_decode() or 1) if control.kind == UNI3C else None
    wrapper = WindowedEmbedding if control.kind == ANIMA else WindowedPatch
    gate = Gate(control.name, window, model)
    patched.add_callback(CallbacksMP.ON_PRE_RUN, gate.start)
    before = model.model_options["transformer_options"].get("patches", {})
    wrapped: dict[int, WindowedPatch] = {}
    for place, patches in patched.model_options["transformer_options"]["patches"].items():
        for index in range(len(before.get(place, ())), len(patches)):
            patch = patches[index]
            # Those without models, in Anima's attention, act only after the one with models has.
            if hasattr(patch, "models"):
                new = wrapper(patch, gate, None if reach == "everywhere" else masks, frames)
                patches[index] = wrapped.setdefault(id(patch), new)
    return patched


def check_fits(control: PatchControl, model: ModelPatcher) -> None:
    """Raise FamilyMismatchError unless the model has the network that the control was made for."""
    kind = KINDS[control.kind]
    theirs = model.model.model_config.unet_config.get("image_model") or type(model.model).__name__
    who = f"{control.name} is a {control.kind} control"
    if theirs != kind.transformer:
        raise FamilyMismatchError(
            f"{who}, for models of the type {kind.transformer}; the model is of the type {theirs}. "
            "Load a control made for that model."
        )
    width = kind.model_width(model.get_model_object("diffusion_model"))
    if width != kind.width(control.patcher.model):
        raise FamilyMismatchError(
            f"{who} for tokens of width {kind.width(control.patcher.model)}; the model's have {width}. "
            "Load a control made for that model."
        )


def check_inputs(control: PatchControl, model: ModelPatcher, hint: Tensor, vae: Any) -> None:
    """Raise ControlNetKitError for a VAE that is missing or another model's, HintError for too many hints."""
    if control.kind == QWEN and hint.shape[0] > 1:
        raise HintError(f"{control.name} ({QWEN}) takes one hint; the image has {hint.shape[0]}. Choose one.")
    if not KINDS[control.kind].needs_vae:
        return
    if vae is None:
        raise ControlNetKitError(
            f"{control.name} ({control.kind}) takes its hint as a latent: connect the `vae` of ApplyControlNet."
        )
    latents = model.get_model_object("latent_format")
    theirs, ours = (vae.latent_channels, vae.latent_dim), (latents.latent_channels, latents.latent_dimensions)
    if theirs != ours:
        raise ControlNetKitError(
            f"The `vae` of ApplyControlNet makes latents of {theirs[0]} channels in {theirs[1]} dimensions; "
            f"the model's have {ours[0]} in {ours[1]}. Connect the model's own VAE."
        )


def patched_by_host(
    model: ModelPatcher, control: PatchControl, hint: Tensor, vae: Any, strength: float
) -> ModelPatcher:
    """What the host's own node for the kind makes; its window, where it has one, is all of the noise schedule."""
    from comfy_extras import nodes_model_patch as host  # start-up need not wait for it

    if control.kind == ANIMA:
        return host.AnimaLLLiteApply().apply_patch(model, control.patcher, hint, strength, 0.0, 1.0)[0]
    if control.kind == UNI3C:
        return host.WanUni3CControlnetApply().apply_patch(model, control.patcher, vae, hint, strength, 0.0, 1.0)[0]
    return host.QwenImageDiffsynthControlnet().diffsynth_controlnet(model, control.patcher, vae, hint, strength)[0]
