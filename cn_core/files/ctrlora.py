"""CtrLoRA in files (Xu et al., arXiv 2410.09400; github.com/xyfJASON/ctrlora): a base ControlNet, and LoRAs for it.

Both have LDM's keys, as a rule under `control_model.`. What the repository's code says of them:

* The base has no `input_hint_block`: its hint is a latent, see `networks.latent_controlnet`. The released one also
  holds the LoRA of the last condition that it was trained on, which does not count.
* A LoRA holds `NAME.lora_layer.down.weight` (r I) and `NAME.lora_layer.up.weight` (O r) for every fully connected
  layer, to be added as they are (no alpha), and in place of the base's its own zero convolutions and normalisations (of
  those with "norm" in their key).
* Hints in [0, 1] go into the VAE as they are, although it was made for pictures in [-1, 1]; the latent is scaled as the
  model's latents are (0.18215).

Shapes: O outputs, I inputs, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import CheckpointError, FamilyMismatchError
from . import inference
from .detect import LDM_KEYS, Detected

PREFIX = "control_model."
LORA, DOWN, UP = ".lora_layer.", ".lora_layer.down.weight", ".lora_layer.up.weight"
ALL_LORAS = "loras_dict."
"""A training checkpoint of the base has the LoRAs of all its conditions under it."""
HINT_ENCODER = "input_hint_block."


def bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ControlNet's tensors without prefix; of a training checkpoint that holds the model as well, only those."""
    prefix = PREFIX if any(key.startswith(PREFIX) for key in tensors) else ""
    found = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    return {key: tensor for key, tensor in found.items() if not key.startswith(ALL_LORAS)}


def is_ctrlora(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file holds a LoRA for the base ControlNet."""
    return any(LORA in key for key in tensors) and not is_ctrlora_base(tensors)


def is_ctrlora_base(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file holds a base ControlNet, or one that was trained as a whole from it."""
    found = bare(tensors)
    return all(key in found for key in LDM_KEYS) and not any(key.startswith(HINT_ENCODER) for key in found)


def base_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A base's weights under LDM's keys without prefix, as `networks.latent_controlnet.LatentControlNet` has them."""
    return {key: tensor for key, tensor in bare(tensors).items() if LORA not in key}


def detect_ctrlora_base(tensors: Mapping[str, Tensor]) -> Detected | None:
    """The base ControlNet in a file, or None for other files."""
    config = inference.infer(base_tensors(tensors), inference.LDM) if is_ctrlora_base(tensors) else None
    if config is None:
        return None
    return Detected(
        family=inference.family(config),
        layout="ldm",
        prefix=PREFIX if any(key.startswith(PREFIX) for key in tensors) else "",
        difference=False,
        config=config,
        hint_channels=config.in_channels,
        hint_encoder_kind="released",
    )


def apply(
    base: Mapping[str, Tensor] | None, lora: Mapping[str, Tensor], *, name: str = "This file"
) -> dict[str, Tensor]:
    """The ControlNet that a LoRA makes of its base, under LDM's keys without prefix.

    Changed weights are added in float32 and have the base's dtype; the LoRA's own replace the base's in that dtype too.
    Raises CheckpointError without a base, or with something else for one; FamilyMismatchError when the two do not fit.
    """
    if base is None or not is_ctrlora_base(base):
        got = "none" if base is None else "a ControlNet of another kind, or something else"
        raise CheckpointError(
            f"{name} is a CtrLoRA, a LoRA for a base ControlNet, and its base is {got}. "
            "Load the base that it was trained on (such as ctrlora_sd15_basecn700k.ckpt) and connect it."
        )
    weights, changes = base_tensors(base), bare(lora)
    applied = dict(weights)
    for key, tensor in changes.items():
        if key.endswith(DOWN):
            layer = key.removesuffix(DOWN)
            applied[f"{layer}.weight"] = changed(f"{layer}.weight", weights, (changes.get(layer + UP), tensor), name)
        elif not key.endswith(UP):
            applied[key] = tensor.to(fitting(key, tuple(tensor.shape), weights, name))
    return applied


def changed(key: str, weights: Mapping[str, Tensor], pair: tuple[Tensor | None, Tensor], name: str) -> Tensor:
    """The base's weight plus up times down."""
    up, down = pair
    if up is None or up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
        raise CheckpointError(f"{name} has no up that fits its down for {key}. The file is damaged: get it again.")
    weight = fitting(key, (up.shape[0], down.shape[1]), weights, name)
    return (weight.float() + up.to(weight.device).float() @ down.to(weight.device).float()).to(weight.dtype)


def fitting(key: str, shape: tuple[int, ...], weights: Mapping[str, Tensor], name: str) -> Tensor:
    """The base's weight, which must have this shape."""
    weight = weights.get(key)
    if weight is None or tuple(weight.shape) != shape:
        has = "none" if weight is None else f"one of shape {tuple(weight.shape)}"
        raise FamilyMismatchError(
            f"{name} changes {key} of shape {shape}, and the base ControlNet has {has}. "
            "Connect the base that it was trained on."
        )
    return weight
