"""Files of Control-LoRAs: what is in them, turning them into whole ControlNets and ControlNets into them.

A file has LDM's keys of a ControlNet, without prefix. For every weight with two dimensions or more that the ControlNet
copied from its base it holds `NAME.up` and `NAME.down` instead of `NAME.weight`, so that

    weight of the ControlNet = weight of the base + up down

and everything else whole: biases, normalisations, zero convolutions, hint encoder. What is missing is the base's. An
empty tensor `lora_controlnet` marks the format. Stability AI's files for SDXL have 1228 tensors in half precision and a
rank of 128 or 256, at most the number of a layer's input channels (4 for the first).

Shapes: O outputs, I inputs, k kernel, r rank. `up` is O r (O r 1 1 for a convolution), `down` r I (r I k k).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ControlNetKitError, FamilyMismatchError
from .checkpoint import NOT_COPIED
from .detect import Detected, detect

MARKER = "lora_controlnet"
COPIED = ("time_embed.", "label_emb.", "input_blocks.", "middle_block.")
"""What a ControlNet copies from its base."""
UP, DOWN, WEIGHT = ".up", ".down", ".weight"


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """A Control-LoRA made from a ControlNet."""

    tensors: dict[str, Tensor]
    """For a file."""
    errors: dict[str, float]
    """For each changed weight of the ControlNet the Frobenius norm of what the file loses of its difference to the
    base, over that of the difference: 0 is exact, 1 is nothing kept."""


def is_control_lora(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file holds a Control-LoRA."""
    return MARKER in tensors


def pairs(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of the layers that are stored as two thin matrices."""
    names = (key.removesuffix(UP) for key in tensors if key.endswith(UP))
    return [name for name in names if name + DOWN in tensors]


def full_shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size:
    """The shape of up times down: O I or O I k k."""
    return torch.Size((tensors[name + UP].shape[0], *tensors[name + DOWN].shape[1:]))


def detect_control_lora(tensors: Mapping[str, Tensor]) -> Detected | None:
    """The ControlNet that a Control-LoRA makes of its base, or None for a file that is none or of another network."""
    if not is_control_lora(tensors):
        return None
    whole = {key: tensor for key, tensor in tensors.items() if key != MARKER}
    for name in pairs(tensors):
        del whole[name + UP], whole[name + DOWN]
        whole[name + WEIGHT] = torch.empty(full_shape(tensors, name), device="meta")
    return detect(whole)


def network_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors under the names of `networks.control_lora.ControlLoRA`, the pairs as matrices."""
    changed = pairs(tensors)
    names = {f"{name}.bias": f"{name}.up.bias" for name in changed}
    matrices = {name + part for name in changed for part in (UP, DOWN)}
    return {
        **{names.get(key, key): tensor for key, tensor in tensors.items() if key not in matrices | {MARKER}},
        **{key + WEIGHT: tensors[key].flatten(1) for key in matrices},
    }


def merge(tensors: Mapping[str, Tensor], base: Mapping[str, Tensor], *, name: str = "This file") -> dict[str, Tensor]:
    """The ControlNet, under LDM's keys without prefix, that a Control-LoRA makes of `base` (a UNet's weights under such
    keys). Added in float32; merged weights have the base's dtype, all others keep theirs.

    Raises FamilyMismatchError when a weight of the base is missing or of another shape.
    """
    merged = {key: tensor for key, tensor in base.items() if key.startswith(COPIED)}
    merged |= {key: tensor for key, tensor in tensors.items() if key.endswith((WEIGHT, ".bias"))}
    for layer in pairs(tensors):
        key, shape = layer + WEIGHT, full_shape(tensors, layer)
        weight = fitting(key, shape, base, name)
        up, down = (tensors[layer + part].flatten(1).to(weight.device, torch.float32) for part in (UP, DOWN))
        merged[key] = (weight.float() + (up @ down).reshape(shape)).to(weight.dtype)
    return merged


def fitting(key: str, shape: torch.Size, base: Mapping[str, Tensor], name: str) -> Tensor:
    """The base's weight for one of this shape, without the inputs that an inpainting model has after the latent's."""
    weight = base.get(key)
    if weight is not None and key == "input_blocks.0.0.weight":
        weight = weight[:, : shape[1]]
    if weight is None or weight.shape != shape:
        has = "none" if weight is None else f"one of shape {tuple(base[key].shape)}"
        raise FamilyMismatchError(
            f"{name} changes {key} of shape {tuple(shape)}, and the base model has {has}. "
            "Use the model that it was made for, or one of its family."
        )
    return weight


def extract(
    controlnet: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    rank: int,
    *,
    dtype: torch.dtype = torch.float16,
    name: str = "This file",
) -> Extracted:
    """A Control-LoRA from a ControlNet and the base that it was trained on, both under LDM's keys without prefix.

    Each difference gets its best approximation of at most `rank` (Eckart and Young): its singular value decomposition,
    cut off. `dtype` is that of the file. Raises ControlNetKitError for a rank below 1, FamilyMismatchError when
    ControlNet and base do not fit.
    """
    if rank < 1:
        raise ControlNetKitError(f"A Control-LoRA needs a rank of at least 1, got {rank}.")
    copied = [key for key, tensor in controlnet.items() if tensor.ndim >= 2 and not key.startswith(NOT_COPIED)]
    tensors = {key: tensor.to(dtype) for key, tensor in controlnet.items() if key not in set(copied)}
    errors: dict[str, float] = {}
    for key in copied:
        weight = controlnet[key]
        difference = weight.float() - fitting(key, weight.shape, base, name).to(weight.device, torch.float32)
        up, down = (matrix.to(dtype) for matrix in low_rank(difference.flatten(1), rank))
        errors[key] = relative_error(difference.flatten(1), up.float() @ down.float())
        layer = key.removesuffix(WEIGHT)
        tensors[layer + UP] = up.reshape(*up.shape, *(1 for _ in weight.shape[2:]))
        tensors[layer + DOWN] = down.reshape(-1, *weight.shape[1:])
    return Extracted(tensors={**tensors, MARKER: torch.empty(0)}, errors=errors)


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(O r, r I) whose product is the closest to `matrix` (O I); r is `rank`, or less if the matrix has fewer sides.

    The singular vectors of the shorter side are the eigenvectors of the matrix times its transpose: a small problem,
    exact enough in float64, and all that is needed, as U U^T D is D projected on the span of U.
    """
    if matrix.shape[0] > matrix.shape[1]:
        up, down = low_rank(matrix.T, rank)
        return down.T.contiguous(), up.T.contiguous()
    wide = matrix.double()
    _, vectors = torch.linalg.eigh(wide @ wide.T)  # the largest values last
    up = vectors[:, -rank:].flip(1)
    return up.contiguous(), up.T @ wide


def relative_error(expected: Tensor, found: Tensor) -> float:
    """Frobenius norm of the difference over that of `expected`; 0 if both are zero."""
    size = torch.linalg.norm(expected).item()
    return torch.linalg.norm(found - expected).item() / size if size else 0.0
