"""The finished file: one safetensors with LDM's keys and the ControlNet's description; diffusers' layout on demand."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from torch import Tensor

from ... import __version__
from ...cn_core.errors import ControlNetKitError
from ...cn_core.files import checkpoint, convert
from ...cn_core.files.detect import detect
from ...cn_core.files.metadata import ControlNetMetadata
from ..config import TargetConfig
from ..data.origin import origin
from ..errors import ConfigError, OutputError
from ..hardware import DTYPES
from .output import require_space, sync

if TYPE_CHECKING:
    from ..loop import Trainer

LONGEST_NAME = 64
DECODER = "decoder"
"""The further file of `Target.extra_files` with the changed decoder."""


def place(output: Path) -> Path:
    """The file in an output folder; it has the folder's name."""
    return output / f"{output.absolute().name}.safetensors"


def beside(path: Path, suffix: str) -> Path:
    """A further file that the first needs."""
    return path.with_name(f"{path.stem}-{suffix}.safetensors")


def name(text: str) -> str | None:
    """Free text as metadata takes it; None for nothing."""
    words = "".join(letter if letter.isprintable() and letter not in "/\\:" else "-" for letter in text)
    return words[-LONGEST_NAME:] or None


def metadata(run: Trainer, path: Path, further: Collection[str] = ()) -> ControlNetMetadata:
    """What `LoadControlNet`, `AutoPreprocessor` and `ApplyControlNet` set themselves up by, in the file at `path`.

    `further` are the suffixes of the files that it needs.
    """
    data = run.config.data
    maker = origin(data)
    return ControlNetMetadata(
        version=__version__,
        family=run.base.family,
        condition=name(data.condition or ("" if data.hints == "given" else data.hints)),
        preprocessor=maker.entry.node_id if maker else None,
        preprocessor_params=vars(maker.settings("")) if maker else None,
        hint_range=(0, 1),
        resolution=data.resolution,
        base_name=name(run.base.name),
        base_sha256=run.base.sha256,
        decoder=name(beside(path, DECODER).name) if DECODER in further else None,
        steps=run.done,
        samples=run.done * run.config.run.batch,
        dataset_sha256=run.keeper.samples_sha256,
        fidelity=dict(run.scores) or None,
        strength=run.config.run.strength or None,
        start_percent=run.config.run.start_percent or None,
        end_percent=run.config.run.end_percent if run.config.run.end_percent < 1 else None,
        licence=run.config.run.licence or None,
    )


def write(run: Trainer, path: Path) -> Path:
    """Write the ControlNet as it is now, whole or not at all; every process calls this, one writes."""
    weights = run.weights()
    if not run.accelerator.is_main_process:
        return path
    dtype = DTYPES[run.config.run.file_dtype]
    further = run.target.extra_files(weights, run.done)
    header = metadata(run, path, further).to_strings()
    files = {path: run.target.tensors(weights)}
    for suffix, tensors in further.items():
        files[beside(path, suffix)] = dict(tensors)
    for file, tensors in files.items():
        save(file, convert.cast(tensors, dtype), header)
    return path


def save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write one file; OutputError when the disk does not take it."""
    require_space(path.parent, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), path.name)
    try:
        checkpoint.write(path, tensors, header)
        sync(path.parent)
    # safetensors has an error of its own for a full disk.
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise OutputError(f"{path} cannot be written: {error}. The run's checkpoints are whole; resume it.") from error


def check_diffusers(config: TargetConfig) -> None:
    """Raise ConfigError for a target that diffusers has no form for, before it is trained."""
    has = {"kind": "controlnet", "hint_encoder": "released", "unlock_decoder_at": 0}
    for name, value in has.items():
        if getattr(config, name) != value:
            raise ConfigError(
                f"--diffusers writes ControlNets with the released hint encoder for an unchanged base: target.{name} "
                f"must be {value!r}, got {getattr(config, name)!r}. Leave --diffusers out, or change that."
            )


def to_diffusers(path: Path) -> Path:
    """Write the file's ControlNet in diffusers' layout, to a folder of its name beside it."""
    file = checkpoint.read(path)
    detected = detect(file.tensors)
    if detected is None or detected.hint_encoder_kind != "released":
        raise ControlNetKitError(f"{path.name} has no form in diffusers: only ControlNets with its hint encoder have.")
    folder = path.with_suffix("")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir()
    try:
        settings = convert.diffusers_config(file.tensors, detected.config)
        (temporary / convert.FOLDER_CONFIG).write_text(json.dumps(settings, indent=2), encoding="utf-8")
        tensors = convert.to_diffusers(file.tensors, detected.config)
        checkpoint.write(temporary / convert.FOLDER_WEIGHTS, tensors, {**file.metadata, "format": "pt"})
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
