"""Data sets with a file that lists their pictures: fill50k's prompt.json and Hugging Face's metadata.jsonl or .csv.

    {"source": "source/0.png", "target": "target/0.png", "prompt": "pale golden rod circle with old lace background"}
    {"file_name": "0.png", "conditioning_image_file_name": "0_hint.png", "text": "a red car"}

The lists come from strangers: what they name has to lie in their folder.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

from ...errors import DataError
from ..pairs import Fault, Listed, Pair, sorted_out
from ..pictures import file_picture
from .caption import CaptionError, caption_of

FILL50K = "prompt.json"
METADATA = ("metadata.jsonl", "metadata.csv")
IMAGE = ("image", "target", "target_image")
HINT = ("conditioning_image", "hint", "conditioning", "control_image", "control", "source", "condition")
CAPTION = ("text", "caption", "prompt", "captions")
"""Names of columns, those that are in use; the first ones are those of diffusers' examples."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns; a list has a caption, a hint, both or neither."""

    image: str
    hint: str | None
    caption: str | None


def read_fill50k(folder: Path, *, hints: bool) -> Listed:
    """One JSON object per line: source (the hint, if hints are wanted), target, prompt."""
    columns = Columns(image="target", hint="source" if hints else None, caption="prompt")
    return sorted_out(str(folder), entries(folder, folder / FILL50K, columns, json_lines(folder / FILL50K)))


def read_imagefolder(folder: Path, *, hints: bool) -> Listed:
    """A folder with metadata.jsonl or metadata.csv, or one with such folders (splits) below it; hints if wanted."""
    lists = [path for path in (*METADATA, *(f"*/{name}" for name in METADATA)) for path in sorted(folder.glob(path))]
    return sorted_out(str(folder), (entry for path in lists for entry in read_metadata(folder, path, hints)))


def read_metadata(folder: Path, path: Path, hints: bool) -> Iterator[Pair | Fault]:
    """One list; its paths are relative to the folder that it lies in, its columns are those that any row has."""
    rows = list(json_lines(path) if path.suffix == ".jsonl" else csv_lines(path))
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name] or ["file_name"]
    image = "file_name" if "file_name" in names else first(names, tuple(f"{name}_file_name" for name in IMAGE))
    if image is None:
        raise DataError(f"{path} has the columns {', '.join(names)}; expected file_name, which has pictures.")
    hint = first(names, (*(f"{name}_file_name" for name in HINT), *HINT)) if hints else None
    return entries(folder, path, Columns(image=image, hint=hint, caption=first(names, CAPTION)), rows)


def first(names: Sequence[str], known: tuple[str, ...]) -> str | None:
    """The first of the known names that is there."""
    return next((name for name in known if name in names), None)


def entries(root: Path, path: Path, columns: Columns, rows: Iterable[Mapping[str, Any]]) -> Iterator[Pair | Fault]:
    """The pairs of a list; rows that are none become faults."""
    for number, row in enumerate(rows, start=1):
        yield pair_of(root, path.parent, columns, row, f"{path.name}:{number}")


def pair_of(root: Path, folder: Path, columns: Columns, row: Mapping[str, Any], place: str) -> Pair | Fault:
    """One row. Raises DataError for a path that leads out of the folder."""
    image, hint = row.get(columns.image), row.get(columns.hint) if columns.hint else None
    if not isinstance(image, str) or (columns.hint and not isinstance(hint, str)):
        wanted = " or no ".join(name for name in (columns.image, columns.hint) if name)
        return Fault(key=place, problem="bad entry", text=f"it has no {wanted}")
    paths = [inside(folder, image, place), *([inside(folder, hint, place)] if isinstance(hint, str) else [])]
    key = paths[0].relative_to(root).with_suffix("").as_posix()
    for path, problem in zip(paths, ("image missing", "hint missing"), strict=False):
        if not path.is_file():
            return Fault(key=key, problem=problem, text=f"{place} names {path}, which is not there")
    try:
        caption = caption_of(row.get(columns.caption)) if columns.caption else None
    except CaptionError as error:
        return Fault(key=key, problem="bad entry", text=f"in {place} {error}")
    return Pair(
        key=key,
        image=file_picture(paths[0]),
        hint=file_picture(paths[1]) if len(paths) > 1 else None,
        caption=caption,
    )


def inside(folder: Path, name: str, place: str) -> Path:
    """The file of this name below a folder. Raises DataError for one that lies elsewhere."""
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor
    path = folder / name
    if absolute or ".." in parts or "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{place} names {name!r}, which is not below {folder}. Put the pictures into the folder.")
    return path


def json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a file with one on each line; empty lines are skipped."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(text_of(path, file), start=1):
            if not line.strip():
                continue
            try:
                row: object = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(f"{path}, line {number} is no JSON ({error}). Expected an object.") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number} is {line.strip()[:40]}; expected an object per line.")
            yield cast("dict[str, Any]", row)


def csv_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a table with a header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield from csv.DictReader(text_of(path, file))
        except csv.Error as error:
            raise DataError(f"{path} is no CSV ({error}). Expected a header and rows.") from error


def text_of(path: Path, lines: Iterator[str]) -> Iterator[str]:
    """The same lines. Raises DataError for bytes that are no UTF-8."""
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8 ({error.reason}). Save it as UTF-8.") from error
