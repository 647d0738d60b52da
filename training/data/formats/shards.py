"""WebDataset: tar archives in which files of one name but for the suffix belong together.

    000123.jpg   000123.hint.png   000123.txt      (or .json with a caption)

One pass over the archives' headers finds where each file lies, so that every picture can be read at any time: order
and epochs are as with any other format. Archives have to be local and not compressed.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..pairs import Fault, Listed, Pair, sorted_out
from ..pictures import SUFFIXES, Encoded, Slice
from .caption import CaptionError, caption_of, cleaned
from .listing import CAPTION, HINT, IMAGE

TEXT = ("txt", "caption", "text")
Members = dict[str, Slice]
"""Suffix after the first dot -> where the file lies."""


def recognises(path: Path) -> bool:
    """Whether there are archives at this path: a folder or one file."""
    return bool(archives(path))


def archives(path: Path) -> list[Path]:
    """The tar files, in order."""
    return sorted(path.glob("*.tar")) if path.is_dir() else [path] if path.suffix == ".tar" and path.is_file() else []


def read(path: Path, *, hints: bool) -> Listed:
    """All pairs of all archives, in their order, with their hints if those are wanted."""
    groups = ((archive, key, members) for archive in archives(path) for key, members in samples(archive))
    return sorted_out(str(path), (pair_of(f"{archive.stem}/{key}", members, hints) for archive, key, members in groups))


def samples(archive: Path) -> Iterator[tuple[str, Members]]:
    """The groups of files that follow each other under one name."""
    key, members = "", Members()
    for name, part in slices(archive):
        folder, _, file = name.rpartition("/")
        stem, _, suffix = file.partition(".")
        if (found := f"{folder}/{stem}".lstrip("/")) != key and members:
            yield key, members
            members = Members()
        key = found
        members[suffix.lower()] = part
    if members:
        yield key, members


def slices(archive: Path) -> Iterator[tuple[str, Slice]]:
    """The regular files of an archive, and where their bytes are. Raises DataError for a damaged one."""
    try:
        with tarfile.open(archive, mode="r:") as tar:
            for member in tar:
                if member.isreg() and not member.issparse():
                    yield member.name, Slice(path=archive, offset=member.offset_data, length=member.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{archive} is no whole tar archive ({error}). Get it again.") from error


def pair_of(key: str, members: Members, wanted: bool) -> Pair | Fault:
    """The pair in a group of files, with its hint if that is wanted."""
    pictures = {suffix: part for suffix, part in members.items() if f".{suffix.rpartition('.')[2]}" in SUFFIXES}
    images = [suffix for suffix in pictures if suffix.rpartition(".")[0] in ("", *IMAGE)]
    hints = [suffix for suffix in pictures if wanted and suffix.rpartition(".")[0] in HINT]
    if len(images) != 1 or len(hints) > 1:
        names = ", ".join(members)
        return Fault(key=key, problem="image missing", text=f"it has {names}; expected one picture, at most one hint")
    try:
        text = caption(key, members)
    except CaptionError as error:
        return Fault(key=key, problem="bad entry", text=f"in {key} {error}")
    return Pair(
        key=key,
        image=encoded(key, images[0], members),
        hint=encoded(key, hints[0], members) if hints else None,
        caption=text,
    )


def encoded(key: str, suffix: str, members: Members) -> Encoded:
    """One picture."""
    return Encoded(name=f"{members[suffix].path.name}:{key}.{suffix}", source=members[suffix])


def caption(key: str, members: Members) -> str | None:
    """From a text file, or from one of the usual fields of a JSON file."""
    try:
        for suffix in TEXT:
            if suffix in members:
                return cleaned(members[suffix].open().read().decode())
        if "json" not in members:
            return None
        fields: Any = json.loads(members["json"].open().read())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"The caption of {key} is no text in UTF-8, or no JSON ({error}).") from error
    found = [fields[name] for name in CAPTION if name in fields] if isinstance(fields, Mapping) else []
    return caption_of(found[0]) if found else None
