"""What a file holds, of all kinds of networks: told by the names and shapes of its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from torch import Tensor

from ..control_types import names
from ..errors import CheckpointError
from ..networks.backend import Backend
from ..networks.control_lora import ControlLoRA
from ..networks.controlnet import ControlNet
from ..networks.latent_controlnet import LatentControlNet
from ..networks.lllite import LLLite
from ..networks.t2i_adapter import T2IAdapter
from ..networks.union import UnionControlNet
from .checkpoint import check_strictly, controlnet_tensors
from .control_lora import MARKER, detect_control_lora, network_tensors
from .ctrlora import base_tensors, detect_ctrlora_base, is_ctrlora
from .detect import Detected, detect
from .kinds import LATENT, Kind, flux_union, foreign, host_kind
from .lllite import is_lllite, read_lllite
from .t2i_adapter import detect_t2i_adapter

META = Backend(device="meta")


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


def ctrlora_base(tensors: Mapping[str, Tensor], name: str) -> Kind | None:
    """CtrLoRA's base ControlNet, or one that was trained as a whole from it."""
    detected = detect_ctrlora_base(tensors)
    if detected is None:
        return None
    own = base_tensors(tensors)
    return Kind(
        kind="CtrLoRA, base ControlNet",
        family=detected.family,
        layout="ldm" + (f" with {detected.prefix}" if detected.prefix else ""),
        runs="this pack",
        notes=LATENT,
        faults=faults(lambda: check_strictly(LatentControlNet(detected.config, META), own, name=name)),
        besides=len(tensors) - len(own),
    )


def ctrlora(tensors: Mapping[str, Tensor], name: str) -> Kind | None:  # noqa: ARG001
    """LoRAs for that base."""
    needs = "It is nothing without its base ControlNet: load that one too, and connect it."
    return Kind(kind="CtrLoRA", runs="this pack", notes=(needs, *LATENT)) if is_ctrlora(tensors) else None


READERS = (control_lora, lllite, ctrlora_base, ctrlora, controlnet, t2i_adapter, flux_union, host_kind, foreign)
"""Specific before broad; the last one knows a name for everything."""


def identify(tensors: Mapping[str, Tensor], name: str) -> Kind:
    """What a file of this name holds."""
    found = (reader(tensors, name) for reader in READERS)
    return next(kind for kind in found if kind is not None)
