"""Weights to begin with that come out of a file: ControlNets of any layout, Control-LoRAs, CtrLoRA's bases."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ...cn_core.errors import FamilyMismatchError
from ...cn_core.files import checkpoint, control_lora, ctrlora
from ...cn_core.files.detect import Detected, describe_foreign, detect
from ...cn_core.networks.controlnet import ControlNet
from ..bases.base import Base
from ..config import TargetConfig
from ..errors import ConfigError

HINT_ENCODER = "input_hint_block."


@contextmanager
def fresh(seed: int) -> Generator[None]:
    """Weights made in here can be trained even if the caller is in inference mode, and depend on the seed alone."""
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def whole(path: Path, base: Base) -> tuple[dict[str, Tensor], Detected]:
    """The ControlNet in a file under LDM's keys, a Control-LoRA added to the base.

    Raises ConfigError for files of other kinds, CheckpointError for damaged ones, FamilyMismatchError for those of
    another family than the base.
    """
    file, unet = checkpoint.read(path), base.unet.state_dict()
    if (detected := detect(file.tensors)) is not None:
        fit(detected, base, path)
        return checkpoint.controlnet_tensors(file.tensors, detected, unet, name=path.name), detected
    if (detected := control_lora.detect_control_lora(file.tensors)) is not None:
        fit(detected, base, path)
        return control_lora.merge(file.tensors, unet, name=path.name), detected
    if (detected := ctrlora.detect_ctrlora_base(file.tensors)) is not None:
        fit(detected, base, path)
        return ctrlora.base_tensors(file.tensors), detected
    raise ConfigError(
        f"target.init must be the file of a ControlNet or Control-LoRA; {path.name} is "
        f"{describe_foreign(file.tensors)}."
    )


def fit(detected: Detected, base: Base, path: Path) -> None:
    """Raise FamilyMismatchError unless the file's network is one for the base."""
    # Neither is in a ControlNet's weights.
    wanted = replace(base.unet.config, num_heads=detected.config.num_heads, out_channels=detected.config.out_channels)
    if detected.config != wanted:
        theirs, ours = vars(detected.config), vars(wanted)
        differing = (name for name in ours if theirs[name] != ours[name])
        other = ", ".join(f"{name} {theirs[name]} instead of {ours[name]}" for name in differing)
        raise FamilyMismatchError(
            f"{path.name} is a ControlNet for {detected.family}, and the base {base.name} is {base.family} ({other}). "
            "Set target.init to a ControlNet of the base's family."
        )


def check_hints(detected: Detected, tensors: Mapping[str, Tensor], config: TargetConfig, path: Path) -> None:
    """Raise ConfigError for a hint encoder that is to be kept and is another one than the settings have."""
    if not config.keep_hint_encoder:
        return
    encodes = any(key.startswith(HINT_ENCODER) for key in tensors)
    theirs = encoded_hints(detected.hint_channels, detected.hint_encoder_kind if encodes else "vae")
    if theirs != (ours := encoded_hints(3, config.hint_encoder)):
        raise ConfigError(
            f"{path.name} takes {theirs}, and this run {ours}. Set target.keep_hint_encoder to false to begin with a "
            "new one, or target.hint_encoder to the file's."
        )


def encoded_hints(channels: int, kind: str) -> str:
    """What a network takes; latents have no encoder of their own."""
    return "hints as latents of the VAE" if kind == "vae" else f"hints of {channels} channels by the encoder {kind!r}"


def begin_with(control: ControlNet, base: Base, config: TargetConfig) -> None:
    """Load the weights of target.init, in place; the hint encoder stays as it is unless the settings keep the file's.

    Raises what `whole` does, and ConfigError for a hint encoder that cannot be kept.
    """
    path = Path(config.init).expanduser()
    tensors, detected = whole(path, base)
    check_hints(detected, tensors, config, path)
    own = {key: value for key, value in control.state_dict().items() if key.startswith(HINT_ENCODER)}
    trunk = {key: value for key, value in tensors.items() if not key.startswith(HINT_ENCODER)}
    encoder = {key: value for key, value in tensors.items() if key.startswith(HINT_ENCODER)}
    checkpoint.load_strictly(control, {**trunk, **(encoder if config.keep_hint_encoder else own)}, name=path.name)


def gaussian_(control: ControlNet) -> None:
    """Gaussian weights that keep the signal's size in place of all zero convolutions', in place.

    The paper's ablation (section 4.3), "standard convolution layers initialized with Gaussian weights".
    """
    first = list(control.input_hint_block[-1:])  # none where hints are latents
    for layer in (*control.zero_convs.modules(), *control.middle_block_out.modules(), *first):
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
