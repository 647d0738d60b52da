"""What a file holds, of all kinds of networks that this pack or its host runs: told by names and shapes of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from ..control_types import names
from ..errors import CheckpointError
from ..networks.backend import Backend
from ..networks.control_lora import ControlLoRA
from ..networks.controlnet import ControlNet
from ..networks.lllite import LLLite
from ..networks.t2i_adapter import T2IAdapter
from ..networks.union import UnionControlNet
from .checkpoint import check_strictly, controlnet_tensors
from .control_lora import MARKER, detect_control_lora, network_tensors
from .detect import Detected, describe_foreign, detect
from .lllite import is_lllite, read_lllite
from .t2i_adapter import detect_t2i_adapter

META = Backend(device="meta")


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


def faults(check: Callable[[], None]) -> str | None:
    """What `check` raises about weights."""
    try:
        check()
    except CheckpointError as error:
        return str(error)
    return None


def network(detected: Detected, backend: Backend) -> ControlNet:
    """A ControlNet of a file's shape, its weights not yet loaded."""
    build = partial(UnionControlNet, control_types=detected.control_types) if detected.control_types else ControlNet
    channels, kind = detected.hint_channels, detected.hint_encoder_kind
    return build(detected.config, backend, hint_channels=channels, hint_encoder_kind=kind)


def controlnet(tensors: Mapping[str, Tensor], name: str) -> Kind | None:
    """ControlNets and unions of Stable Diffusion's shape."""
    detected = detect(tensors)
    if detected is None:
        return None
    own = controlnet_tensors(tensors, replace(detected, difference=False), name=name)
    paper = ("Its hint encoder is that of the paper, which ComfyUI's own loader cannot build.",)
    return Kind(
        kind="ControlNet-Union" if detected.control_types else "ControlNet",
        family=detected.family,
        layout=detected.layout + (f" with {detected.prefix}" if detected.prefix else ""),
        control_types=names(detected.family, detected.control_types),
        hint_encoder=detected.hint_encoder_kind,
        hint_channels=detected.hint_channels,
        difference=detected.difference,
        runs="this pack",
        notes=paper if detected.hint_encoder_kind == "paper" else (),
        faults=faults(lambda: check_strictly(network(detected, META), own, name=name)),
        besides=len(tensors) - len(own) - detected.difference,
    )


def control_lora(tensors: Mapping[str, Tensor], name: str) -> Kind | None:
    """Control-LoRAs, also those of networks that only the host knows."""
    detected = detect_control_lora(tensors)
    if detected is None:
        return Kind(kind="Control-LoRA") if MARKER in tensors else None
    own = network_tensors(tensors)
    rank = max((len(tensor) for key, tensor in own.items() if key.endswith(".down.weight")), default=0)
    build = partial(ControlLoRA, hint_channels=detected.hint_channels, hint_encoder_kind=detected.hint_encoder_kind)
    return Kind(
        kind=f"Control-LoRA of rank {rank}",
        family=detected.family,
        layout="ldm",
        hint_encoder=detected.hint_encoder_kind,
        hint_channels=detected.hint_channels,
        runs="this pack",
        notes=("It works on the weights of the model that is sampled, and fits all models of its family.",),
        faults=faults(lambda: check_strictly(build(detected.config, own, META), own, name=name)),
    )


def t2i_adapter(tensors: Mapping[str, Tensor], name: str) -> Kind | None:
    """T2I-Adapters, full and light."""
    detected = detect_t2i_adapter(tensors)
    if detected is None:
        return None
    theirs = detected.tensors.keys() != tensors.keys()
    return Kind(
        kind="T2I-Adapter, light" if detected.config.kind == "light" else "T2I-Adapter",
        family=detected.family,
        layout="diffusers" if theirs else "TencentARC",
        hint_encoder=f"pixels folded {detected.config.unshuffle} x {detected.config.unshuffle}",
        hint_channels=detected.config.hint_channels,
        runs="this pack",
        faults=faults(lambda: check_strictly(T2IAdapter(detected.config, META), detected.tensors, name=name)),
    )


def lllite(tensors: Mapping[str, Tensor], name: str) -> Kind | None:
    """ControlNet-LLLites for UNets."""
    if not is_lllite(tensors):
        return None
    kind = Kind(kind="ControlNet-LLLite", layout="kohya", runs="this pack")
    try:
        detected = read_lllite(tensors, name=name)
    except CheckpointError as error:
        return replace(kind, faults=str(error))
    return replace(
        kind,
        family=detected.family,
        hint_encoder=f"convolutions of its own before each of {len(detected.configs)} layers",
        hint_channels=3,
        faults=faults(lambda: check_strictly(LLLite(detected.configs, META), tensors, name=name)),
    )


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


READERS = (control_lora, lllite, controlnet, t2i_adapter, flux_union, host_kind, foreign)
"""Specific before broad; the last one knows a name for everything."""


def kind_of(tensors: Mapping[str, Tensor], name: str) -> Kind:
    """What a file of this name holds."""
    found = (reader(tensors, name) for reader in READERS)
    return next(kind for kind in found if kind is not None)
