"""Tensors on the disk under the hash of all that they depend on: made once, in chunks, and found again.

A chunk is one safetensors file, named by the hash of its items' names. So what is there is up to date; what changed
has another name; and a build that was interrupted goes on where it was. Processes that build at the same time share
the chunks among them: each is locked while it is made, then written at once. Files are mapped, not loaded.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from torch import Tensor

from ...cn_core.errors import CheckpointError
from ...cn_core.files import checkpoint
from .memo import Memo
from .pictures import digest_of, hashed, stamp_of

CHUNK = 64
"""Items of a chunk on average; at most twice as many."""
OPEN = 128
"""Chunks that are mapped at a time."""
PAUSE_S = 0.2
"""Between looks at chunks that another process is making."""
DIGEST = "blake2b"

Progress: TypeAlias = Callable[[str, int, int], None]
"""What is made, how many are done, of how many. It may raise to stop the build; what is done stays."""
Chunk: TypeAlias = tuple[int, ...]
"""Numbers of items."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to keep."""

    name: str
    """Hash of all that it depends on, in hex."""
    place: str
    """Hash that decides which others it is kept with, in hex; the same when the contents change."""
    kind: tuple[int, ...] = ()
    """Only items of one kind share a chunk, such as those of one size."""


Build: TypeAlias = Callable[[Chunk], Mapping[str, Tensor]]
"""Makes the tensors of some items: N ... each."""


class Readable(Protocol):
    """Items that can be had, from several threads."""

    def items(self, numbers: Sequence[int]) -> Sequence[Mapping[str, Tensor]]:
        """The tensors of those with these numbers, which are of one kind."""
        ...


def silent(what: str, done: int, total: int) -> None:
    """No progress is shown."""


def chunks(items: Sequence[Item]) -> list[Chunk]:
    """Which items are kept together: neighbours in the order of their places, cut where a place says so.

    So an item more or less changes one chunk or two, not all that follow.
    """
    order = sorted(range(len(items)), key=lambda number: (items[number].kind, items[number].place))
    found: list[Chunk] = []
    for _, group in groupby(order, key=lambda number: items[number].kind):
        part: list[int] = []
        for number in group:
            part.append(number)
            if int(items[number].place[-8:], 16) % CHUNK == 0 or len(part) == 2 * CHUNK:
                found.append(tuple(part))
                part = []
        if part:
            found.append(tuple(part))
    return found


@dataclass(frozen=True, kw_only=True)
class Store:
    """A folder of chunks."""

    folder: Path
    memo: Memo
    what: str
    """For progress."""

    def open(self, items: Sequence[Item], build: Build, progress: Progress) -> Shelf:
        """Make what is missing, then give access to all items. Raises OSError when the disk is full."""
        parts = chunks(items)
        paths = [self.folder / f"{hashed([items[number].name for number in part])}.safetensors" for part in parts]
        known = self.memo.read_all([key(path) for path in paths])
        missing = [number for number, path in enumerate(paths) if not self.whole(path, known.get(key(path)))]
        done = len(items) - sum(len(parts[number]) for number in missing)
        if missing:
            self.folder.mkdir(parents=True, exist_ok=True)
            progress(self.what, done, len(items))
        while missing:
            busy: list[int] = []
            for number in missing:
                if self.make(paths[number], parts[number], build):
                    done += len(parts[number])
                    progress(self.what, done, len(items))
                else:
                    busy.append(number)
            missing = busy
            if busy:
                time.sleep(PAUSE_S)
        return Shelf(paths, parts, len(items))

    def make(self, path: Path, part: Chunk, build: Build) -> bool:
        """Make one chunk, unless another process does it at this moment (False) or did it (True)."""
        lock = path.with_suffix(".lock")
        try:
            with FileLock(lock, blocking=False):
                for left in path.parent.glob(f".{path.name}.*"):  # by a process that was killed
                    left.unlink()
                if not self.whole(path, self.memo.read(key(path))):
                    tensors = {name: tensor.contiguous() for name, tensor in build(part).items()}
                    write(path, tensors)
                    self.memo.write(key(path), stamp_of(path))
        except Timeout:
            return False
        with contextlib.suppress(PermissionError):  # Windows, when another process looks at it
            lock.unlink(missing_ok=True)
        return True

    def whole(self, path: Path, known: str | None) -> bool:
        """Whether a chunk is there and as it was written. It is read if its size or time is not the known one."""
        if not path.is_file():
            return False
        stamp = stamp_of(path)
        if known == stamp:
            return True
        try:
            file = checkpoint.read(path)
        except CheckpointError:
            return False
        if file.metadata.get(DIGEST) != digest(file.tensors):
            return False
        self.memo.write(key(path), stamp)
        return True


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A chunk, whole or not at all; OSError when the disk does not take it."""
    try:
        checkpoint.write(path, tensors, {DIGEST: digest(tensors)})
    except OSError as error:
        raise OSError(
            f"The cache {path.parent} cannot be written: {error}. Free space, or set data.cache to a folder on another "
            "disk; the same command goes on where it was."
        ) from error


def key(path: Path) -> str:
    """Of a chunk's size and time in the memo."""
    return f"chunk {path.parent.name}/{path.name}"


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and values."""
    parts = [f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode() for name in sorted(tensors)]
    values = [tensors[name].flatten().view(torch.uint8).numpy().tobytes() for name in sorted(tensors)]
    return digest_of(*parts, *values)


class Shelf:
    """Items that are on the disk, by their numbers. May be read from several threads."""

    def __init__(self, paths: Sequence[Path], parts: Sequence[Chunk], count: int) -> None:
        self.paths = paths
        self.chunk = torch.empty(count, dtype=torch.int32)
        self.row = torch.empty(count, dtype=torch.int32)
        for number, part in enumerate(parts):
            self.chunk[list(part)] = number
            self.row[list(part)] = torch.arange(len(part), dtype=torch.int32)
        self.opened = lru_cache(OPEN)(self.map)

    def map(self, chunk: int) -> Any:
        """A chunk's file, mapped: its tensors take memory when they are read."""
        return safe_open(self.paths[chunk], framework="pt")

    def items(self, numbers: Sequence[int]) -> list[dict[str, Tensor]]:
        """The tensors of some items; copies."""
        return [self.item(number) for number in numbers]

    def item(self, number: int) -> dict[str, Tensor]:
        """Those of one."""
        file, row = self.opened(int(self.chunk[number])), int(self.row[number])
        return {name: file.get_slice(name)[row].clone() for name in file.keys()}  # noqa: SIM118, it is no dict
