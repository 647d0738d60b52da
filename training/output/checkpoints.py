"""Checkpoints: folders that are complete or not there.

A checkpoint is written under another name, with a manifest of its files' hashes, forced to the disk and renamed in one
step. Older ones go only after that. A run resumes from the newest one whose hashes are right.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError

from ..errors import OutputError
from .output import require_space, sync

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
UNFINISHED, DAMAGED = ".tmp", ".damaged"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A whole checkpoint."""

    step: int
    """Steps done."""
    path: Path
    facts: Mapping[str, Any]
    """As given when it was saved."""
    files: Mapping[str, str]
    """Path in the folder -> SHA-256."""


class Checkpoints:
    """Those of one output folder."""

    def __init__(self, output: Path, keep: int) -> None:
        self.folder = output / FOLDER
        self.keep = keep

    def place(self, step: int) -> Path:
        """Where the checkpoint after `step` steps is."""
        return self.folder / f"step-{step:07d}"

    def unfinished(self, step: int) -> Path:
        """Where it is while it is being written."""
        return self.place(step).with_suffix(UNFINISHED)

    def all(self) -> list[Path]:
        """Finished ones, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if not path.suffix)

    def newest(self, *, hashed: bool = True) -> Found | None:
        """The newest whole one; None when there is none at all. Changes nothing.

        Raises OutputError when none is whole: a run that began anew would write over what the damaged ones belong to.
        Without `hashed` the files' sizes have to do, which is quick, and enough for what the facts say.
        """
        paths = self.all()
        read = whole if hashed else listed
        found = next((one for one in map(read, reversed(paths)) if one is not None), None)
        if found is None and paths:
            raise OutputError(
                f"No checkpoint in {self.folder} is whole ({', '.join(path.name for path in paths)}), so there is "
                "nothing to go on from. Put a copy of one there; to begin anew, move that folder away or name another "
                "one in run.output."
            )
        return found

    def begin(self, step: int, size: int) -> Path:
        """An empty folder to write the checkpoint into; OutputError when the disk has no room for `size` bytes."""
        require_space(self.folder, size, f"the checkpoint of step {step}")
        for leftover in self.folder.glob(f"*{UNFINISHED}"):
            shutil.rmtree(leftover)
        temporary = self.unfinished(step)
        temporary.mkdir(parents=True)
        return temporary

    def commit(self, step: int, facts: Mapping[str, Any]) -> Path:
        """Make what lies in the folder from `begin` the newest checkpoint, then remove those beyond `keep`."""
        temporary, final = self.unfinished(step), self.place(step)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        names = {
            path.relative_to(temporary).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
            for path in files
        }
        manifest = temporary / MANIFEST
        manifest.write_text(json.dumps({"step": step, "files": names, "facts": facts}, indent=1), encoding="utf-8")
        for path in (*files, manifest, *(p for p in temporary.rglob("*") if p.is_dir()), temporary):
            sync(path)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync(self.folder)
        for old in self.all()[: -self.keep]:
            if old != final:
                shutil.rmtree(old)
        return final

    @contextmanager
    def reporting(self, step: int) -> Generator[None]:
        """Around the writing of a checkpoint: OutputError when it fails, and those before it are as they were."""
        try:
            yield
        except OutputError:
            raise
        # safetensors and torch have errors of their own for a full disk.
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            shutil.rmtree(self.unfinished(step), ignore_errors=True)
            raise OutputError(
                f"The checkpoint of step {step} cannot be written to {self.folder}: {error}. "
                "Those before it are whole; free space, or set run.output to another disk."
            ) from error

    def set_aside(self, after: int) -> list[Path]:
        """Rename checkpoints newer than the one that a run goes on from, since they are damaged; where they are now."""
        newer = [path for path in self.all() if path.name > self.place(after).name]
        for path in newer:
            shutil.rmtree(path.with_suffix(DAMAGED), ignore_errors=True)
            path.rename(path.with_suffix(DAMAGED))
        return [path.with_suffix(DAMAGED) for path in newer]


def whole(path: Path) -> Found | None:
    """The checkpoint in a folder, if each of its files is what the manifest says."""
    found = listed(path)
    try:
        return found if found and all(sha256(path / name) == code for name, code in found.files.items()) else None
    except OSError:
        return None


def listed(path: Path) -> Found | None:
    """The checkpoint in a folder, if each of its files is there and as large as the manifest says; none is read."""
    try:
        manifest = cast("dict[str, Any]", json.loads((path / MANIFEST).read_text(encoding="utf-8")))
        files = cast("dict[str, dict[str, Any]]", manifest["files"])
        hashes = {name: str(file["sha256"]) for name, file in files.items()}
        right = all((path / name).stat().st_size == file["bytes"] for name, file in files.items())
        found = Found(step=int(manifest["step"]), path=path, facts=manifest["facts"], files=hashes)
        return found if right else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
