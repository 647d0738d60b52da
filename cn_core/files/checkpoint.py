"""Reading and writing model files, and putting their weights into networks.

Files are untrusted: nothing in them is executed, and nothing is loaded that does not fit exactly.
"""

from __future__ import annotations

import os
import pickle
import secrets
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from ..errors import CheckpointError, FamilyMismatchError
from ..networks.config import UNetConfig
from . import inference
from .detect import Detected
from .keymaps import inverse, rename
from .keymaps.controlnet import controlnet_keys

SAFETENSORS_SUFFIXES = (".safetensors", ".sft")
NOT_COPIED = ("input_hint_block.", "zero_convs.", "middle_block_out.")
"""The ControlNet's own weights; all others began as copies of the UNet's."""
TORCH_ERRORS = (
    *(RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(OverflowError, MemoryError, struct.error),
)
"""What torch's readers were seen to raise on damaged bytes, or may."""
NAMED = 3
"""How many keys an error message spells out."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file's contents, on the CPU."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    """The safetensors header's strings; empty for other formats."""


def read(path: Path, inside: str = "state_dict") -> Checkpoint:
    """Read safetensors, or PyTorch's own format restricted to tensors; raises CheckpointError when that fails.

    `inside` is the key under which the latter may have them.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    # A header length in 8 bytes, then JSON; pickles and zip archives never look like this.
    if path.suffix.lower() in SAFETENSORS_SUFFIXES or start[8:] == b"{":
        return read_safetensors(path)
    return read_pickle(path, inside)


def read_safetensors(path: Path) -> Checkpoint:
    """The tensors are views of the mapped file: they cost memory when they are used."""
    try:
        opened: Any = safe_open(path, framework="pt")
        with opened as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dict
            return Checkpoint(path=path, tensors=tensors, metadata=file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path.name} is not a whole safetensors file ({error}). "
            "It was probably not downloaded to the end, or is of another format: get it again."
        ) from error


def read_pickle(path: Path, inside: str) -> Checkpoint:
    """PyTorch's format: a dict of tensors, maybe inside another dict; anything else in it is refused or left out."""
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" not in str(error):
            raise damaged(path) from error
        raise CheckpointError(
            f"{path.name} holds Python objects besides tensors, and to unpickle those could run any program. "
            "If you trust its source, convert it elsewhere: "
            'safetensors.torch.save_file(torch.load(FILE, weights_only=False)["state_dict"], "FILE.safetensors").'
        ) from error
    except TORCH_ERRORS as error:
        raise damaged(path) from error
    tensors = {key: value.detach() for key, value in unwrapped(content, inside).items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path.name} holds no tensors; a model file was expected.")
    return Checkpoint(path=path, tensors=tensors, metadata={})


def damaged(path: Path) -> CheckpointError:
    """The error for a file that torch cannot read."""
    return CheckpointError(
        f"{path.name} is neither a whole PyTorch file nor safetensors. "
        "It was probably not downloaded to the end, or is of another format: get it again."
    )


def unwrapped(content: object, inside: str) -> dict[str, object]:
    """The state dict in what a file held: itself, under the key `inside`, or in a dict around it."""
    outer = as_dict(content)
    inner = outer.get(inside, next(iter(outer.values())) if len(outer) == 1 else None)
    return as_dict(inner) or outer


def as_dict(value: object) -> dict[str, object]:
    """A dict with strings for keys; empty for anything else."""
    return (
        {str(key): item for key, item in cast("dict[object, object]", value).items()} if isinstance(value, dict) else {}
    )


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write safetensors to `path` whole or not at all, replacing what was there; raises OSError when it cannot."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        contiguous = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        try:
            save_file(contiguous, temporary, metadata=dict(metadata))
        except SafetensorError as error:  # of its own for a full disk
            raise OSError(str(error)) from error
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those under a prefix, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def controlnet_tensors(
    tensors: Mapping[str, Tensor],
    detected: Detected,
    base: Mapping[str, Tensor] | None = None,
    *,
    name: str = "This file",
) -> dict[str, Tensor]:
    """The ControlNet of a file under LDM's keys without prefix, as our networks have them.

    A difference file needs `base`, the UNet's weights under LDM's keys without prefix: without it CheckpointError, and
    FamilyMismatchError when the two do not fit. Keys that are not known stay, so that strict loading names them.
    """
    if detected.layout == "diffusers":
        return rename(tensors, inverse(controlnet_keys(detected.config, union=detected.control_types > 0)))
    bare = {
        key.removeprefix(detected.prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(detected.prefix) and key != "difference"
    }
    if not detected.difference:
        return bare
    if base is None:
        raise CheckpointError(
            f"{name} stores its weights as differences from the base model's and is nothing without them. "
            "Connect the model that it was made for."
        )
    copied = {key: added(key, tensor, base, name) for key, tensor in bare.items() if not key.startswith(NOT_COPIED)}
    return {**bare, **copied}


def added(key: str, difference: Tensor, base: Mapping[str, Tensor], name: str) -> Tensor:
    """difference + base, in the difference's dtype and on its device, as the host adds them."""
    weight = base.get(key)
    if weight is None or weight.shape != difference.shape:
        has = "no such weight" if weight is None else f"one of shape {tuple(weight.shape)}"
        raise FamilyMismatchError(
            f"{name} stores a difference of shape {tuple(difference.shape)} for {key}, and the base model has {has}. "
            "Use the model that it was made for."
        )
    return difference + weight.to(difference.dtype).to(difference.device)


def check_strictly(module: nn.Module, tensors: Mapping[str, Tensor], *, name: str) -> None:
    """Raise CheckpointError unless `tensors` has `module`'s very keys and shapes.

    The network may be on the meta device: then a file is checked before any memory is taken on its word.
    """
    expected = module.state_dict()
    misshapen = (
        f"{key} {tuple(tensors[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in tensors and tensors[key].shape != expected[key].shape
    )
    faults = (
        listed("missing", (key for key in expected if key not in tensors)),
        listed("unexpected", (key for key in tensors if key not in expected)),
        listed("of another shape", misshapen),
    )
    if any(faults):
        raise CheckpointError(
            f"{name} does not fit {type(module).__name__}; weights {'; '.join(fault for fault in faults if fault)}. "
            "The file is damaged or made for another network: get it again, or use another one."
        )


def listed(fault: str, keys: Iterable[str]) -> str:
    """Something like "missing: a, b, c and 4 more", or nothing for no keys."""
    found = list(keys)
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"{fault}: {', '.join(found[:NAMED])}{more}" if found else ""


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], *, name: str, assign: bool = False) -> None:
    """Load `tensors` into `module`, or raise CheckpointError that names what is missing, unexpected or misshapen.

    With `assign` the module takes the tensors themselves, dtype and all, instead of copies. For a host whose layers are
    empty until they are loaded, use `check_strictly` with the same network on the meta device and load yourself.
    """
    check_strictly(module, tensors, name=name)
    module.load_state_dict(tensors, assign=assign)


def unet_config(tensors: Mapping[str, Tensor]) -> UNetConfig:
    """The configuration of a UNet from its weights under LDM's keys without prefix."""
    config = inference.infer(tensors, inference.LDM)
    if config is None:
        raise CheckpointError(
            "These weights are not of a UNet of Stable Diffusion's shape; keys such as input_blocks.0.0.weight and "
            f"middle_block.1.proj_in.weight were expected, the first ones here are {', '.join(list(tensors)[:NAMED])}."
        )
    return config
