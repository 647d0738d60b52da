"""What a user wants to know of a file before it is loaded, as text and as JSON."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from .checkpoint import Checkpoint
from .conditions import by_name, is_pooled, preprocessor_of
from .identify import identify
from .kinds import Kind
from .metadata import PREFIX, RULES, ControlNetMetadata

CHUNK = 1 << 20
"""Bytes that are read at a time for a digest."""
SHOWN = ("family", "condition", "preprocessor")
"""Fields of the metadata that a report's text has further up."""
UNION_OWN_CHOICE = "chosen by the type of the hint"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a file tells; None where it says nothing."""

    name: str
    kind: str
    family: str | None
    layout: str | None
    runs: str | None
    """Who runs it: this pack, or ComfyUI."""
    condition: str | None
    """What the hint shows."""
    control_types: tuple[str, ...]
    preprocessor: str | None
    """Which one makes fitting hints; None: unknown, or none is needed."""
    hint_encoder: str | None
    hint_channels: int | None
    dtypes: Mapping[str, int]
    """Parameters by dtype, the most frequent first."""
    parameters: int
    bytes: int
    """Of the file."""
    sha256: str
    metadata: Mapping[str, Any]
    """Fields of ours that are within their bounds."""
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        """An object with the fields of this class."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def to_text(self) -> str:
        """A line for each thing that is known, warnings last."""
        lines = [
            self.name,
            f"kind: {self.kind}" + (f", run by {self.runs}" if self.runs else ""),
            *(f"{name}: {value}" for name, value in self.known()),
            f"weights: {self.parameters / 1e6:.1f} million in {' and '.join(self.dtypes)}, {megabytes(self.bytes)}",
            f"sha256: {self.sha256}",
            *(f"metadata, {name}: {value}" for name, value in self.metadata.items() if name not in SHOWN),
            *(f"Warning: {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)

    def known(self) -> Iterator[tuple[str, str]]:
        """Names and values of what the network tells of itself."""
        encoder = f"{self.hint_encoder}, {self.hint_channels} channels" if self.hint_encoder else None
        values = {
            "family": self.family,
            "layout": self.layout,
            "condition": self.condition,
            "types of hints": ", ".join(self.control_types),
            "preprocessor": self.preprocessor,
            "hint encoder": encoder,
        }
        return ((name, value) for name, value in values.items() if value)


def describe(checkpoint: Checkpoint) -> Report:
    """What is in a file that was read. Of the weights only names and shapes are looked at; the file is read once more
    for its digest. Raises OSError when that fails.
    """
    path, tensors = checkpoint.path, checkpoint.tensors
    kind = identify(tensors, path.name)
    metadata = ControlNetMetadata.from_strings(checkpoint.metadata)
    known = {field.name: value for field in fields(metadata) if (value := getattr(metadata, field.name)) is not None}
    named = by_name(path.name)
    types = " / ".join(kind.control_types) or None
    condition = metadata.condition or types or (named.shows if named else None)
    preprocessor = metadata.preprocessor or (preprocessor_of(condition) if condition and not types else None)
    return Report(
        name=path.name,
        kind=kind.kind,
        family=kind.family,
        layout=kind.layout,
        runs=kind.runs,
        condition=condition,
        control_types=kind.control_types,
        preprocessor=preprocessor or (UNION_OWN_CHOICE if types else None),
        hint_encoder=kind.hint_encoder,
        hint_channels=kind.hint_channels,
        dtypes=parameters_by_dtype(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        bytes=path.stat().st_size,
        sha256=digest(path),
        metadata=known,
        warnings=tuple(warnings(checkpoint, kind, metadata)),
    )


def parameters_by_dtype(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """How many numbers there are of each dtype, most first."""
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return dict(counts.most_common())


def digest(path: Path) -> str:
    """The SHA-256 of a file, read piece by piece."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
    return sha256.hexdigest()


def warnings(checkpoint: Checkpoint, kind: Kind, metadata: ControlNetMetadata) -> Iterator[str]:
    """What may go wrong with a file, or could be better."""
    path = checkpoint.path
    if kind.runs is None:
        what, _, _ = kind.kind.partition(" (")
        yield f"This is no ControlNet but {what}: it belongs in another folder, and another node loads it."
    yield from kind.notes
    if kind.difference:
        yield "It holds differences from a base model: connect that model to Load ControlNet."
    if kind.faults:
        yield kind.faults
    if kind.hint_channels not in (None, 1, 3):
        yield f"It takes hints of {kind.hint_channels} channels, and a picture has 3."
    yield from storage_warnings(checkpoint, kind)
    if is_pooled(path.stem):
        yield "Its residuals are averaged over the picture, because its file name ends in _shuffle: keep the name."
    elif "shuffle" in path.stem.lower():
        yield "Its residuals are not averaged over the picture: for that the file name has to end in _shuffle."
    if metadata.family and kind.family and metadata.family != kind.family:
        yield f"Its metadata says that it is for {metadata.family}, its weights are those of {kind.family}."
    if metadata.needs:
        yield metadata.needs
    yield from ignored_fields(checkpoint.metadata, metadata)


def storage_warnings(checkpoint: Checkpoint, kind: Kind) -> Iterator[str]:
    """Formats and sizes."""
    size = checkpoint.path.stat().st_size
    if is_pickle(checkpoint.path):
        yield "It is a pickle, a format that can run programs in readers less careful than this one: save it anew."
    if kind.besides:
        yield f"{kind.besides} of its tensors are no part of the ControlNet; Save ControlNet leaves them out."
    if next(iter(parameters_by_dtype(checkpoint.tensors)), "") == "float32" and kind.runs:
        yield f"It is in float32: in fp16 it would take {megabytes(size // 2)} instead of {megabytes(size)}."


def is_pickle(path: Path) -> bool:
    """Whether a file is anything but safetensors, which begin with a length in 8 bytes and JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] != b"{"


def ignored_fields(strings: Mapping[str, str], metadata: ControlNetMetadata) -> Iterator[str]:
    """Fields of ours that a file has and that were out of bounds."""
    ignored = [name for name in RULES if PREFIX + name in strings and getattr(metadata, name) is None]
    if ignored:
        yield f"These fields of its metadata are malformed and ignored: {', '.join(ignored)}."


def megabytes(size: int) -> str:
    """In MB of a million bytes."""
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
