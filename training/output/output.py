"""The output folder of a run: ours or nobody's, and enough room on its disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from ..errors import OutputError
from ..whole_files import write_whole

LOCK = ".lock"
MARKER = "run.json"
"""The file that says a folder is a run's."""
HALF_WRITTEN = f".{MARKER}."
"""Begins the names of files that a process which was killed left of it."""
MADE_BY = "controlnet_kit.training"
SPARE = 64 * 2**20
"""Bytes left free beside what is written."""
MAY_CHANGE = (
    *("base.path", "base.vae", "base.text_encoder", "base.tokenizer", "data.path"),
    *("data.cached", "data.cache", "data.workers"),
    *("run.output", "run.steps", "run.save_every", "run.keep", "run.log_every", "run.trackers", "run.resume"),
    *("run.file_dtype", "run.licence", "run.strength", "run.start_percent", "run.end_percent"),
)
"""What a resumed run may have otherwise; hardware and validation too. The base's and the data's hashes are compared."""
MAY_CHANGE_TABLES = ("hardware", "validation")

Tables = Mapping[str, Mapping[str, Any]]


def describe(folder: Path) -> dict[str, Any] | None:
    """What a run wrote of itself in the folder; None when there is none. OutputError for a folder of someone else."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise OutputError(f"run.output must be a folder, and {folder} is a file.")
    try:
        found: object = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if isinstance(found, dict) and cast("dict[str, Any]", found).get("made_by") == MADE_BY:
        return cast("dict[str, Any]", found)
    if any(path.name != LOCK and not path.name.startswith(HALF_WRITTEN) for path in folder.iterdir()):
        raise OutputError(
            f"{folder} holds files and no run of this trainer: nothing was written. Name another folder in run.output."
        )
    return None


def claim(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write down whose the folder is; OutputError when that cannot be done."""
    try:
        write_text(folder / MARKER, json.dumps({"made_by": MADE_BY, **facts}, indent=1))
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be written: {error.strerror}.") from error


def check_free(folder: Path) -> None:
    """Raise OutputError for a folder that cannot be made or is in use by another process. Leaves nothing behind."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise OutputError(f"The folder {folder} cannot be made: {existing} is no folder that can be written to.")
    if (folder / LOCK).exists():
        with alone(folder):
            pass


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """Make and hold a run's folder; OutputError while another process does. However that one ends, it lets go."""
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"Another process is training into {folder}: wait for it, or name another folder in run.output."
        ) from error
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    try:
        yield
    finally:
        lock.release()


def changed(old: Tables, new: Tables) -> list[str]:
    """Settings that differ and that a run cannot go on with, as "optimizer.learning_rate 1e-05, was 0.0001"."""
    found: list[str] = []
    for table, values in new.items():
        before = old.get(table, {})
        for key, value in values.items():
            name, was = f"{table}.{key}", before.get(key, value)
            if plain(value) != plain(was) and table not in MAY_CHANGE_TABLES and name not in MAY_CHANGE:
                found.append(f"{name} {plain(value)!r}, was {plain(was)!r}")
    return found


def plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))


def require_space(folder: Path, size: int, what: str) -> None:
    """Raise OutputError when the disk has no room for `size` bytes more."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < size + SPARE:
        raise OutputError(
            f"The disk of {folder} has {free / 2**30:.2f} GiB free, and {what} takes {(size + SPARE) / 2**30:.2f}. "
            "Free some, or set run.output to another disk; what was saved before is untouched."
        )


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all, and have it on the disk itself."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)

    write_whole(path, write)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file or folder on the disk itself."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
