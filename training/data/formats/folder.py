"""Folders of pairs: pictures, hints and captions that share their path below three folders, but for the suffix.

    DATA/images/a/001.png   DATA/hints/a/001.png   DATA/captions/a/001.txt

A caption may lie beside its picture instead, and the pictures in DATA itself, with the other two folders among them.
Without a folder of hints they are to be made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ...errors import DataError
from ..pairs import Fault, Listed, Pair
from ..pictures import SUFFIXES, file_picture
from .caption import cleaned

IMAGES = ("images", "image", "targets", "target")
HINTS = ("hints", "hint", "conditioning_images", "conditioning", "controls", "control", "sources", "source")
CAPTIONS = ("captions", "caption", "prompts", "texts", "text")
"""Names of the three folders, the first one ours."""
TEXT = frozenset((".txt", ".caption"))


def recognises(path: Path) -> bool:
    """Whether a folder is of this kind."""
    return path.is_dir() and (below(path, IMAGES) is not None or any(files(path, SUFFIXES)))


def read(path: Path, *, hints: bool) -> Listed:
    """All pairs by name, with their hints if those are wanted. Raises DataError for two pictures of one name."""
    folder = below(path, IMAGES) or path
    hint_folder, caption_folder = below(path, HINTS), below(path, CAPTIONS)
    images = by_stem(folder, SUFFIXES, (hint_folder,))
    drawn = by_stem(hint_folder, SUFFIXES) if hint_folder and hints else {}
    captions = by_stem(folder, TEXT, (hint_folder, caption_folder))
    captions |= by_stem(caption_folder, TEXT) if caption_folder else {}
    faults = orphans(images, drawn, hint_folder) if hint_folder and drawn else []
    faults += [
        Fault(key=key, problem="image missing", text=f"there is no picture for {captions[key]}")
        for key in captions
        if key not in images and key not in drawn
    ]
    keys = [key for key in images if not drawn or key in drawn]
    pairs = [pair(key, images[key], drawn.get(key), captions.get(key)) for key in keys]
    return Listed(name=str(path), pairs=pairs, faults=tuple(faults))


def orphans(images: Mapping[str, Path], hints: Mapping[str, Path], hint_folder: Path) -> list[Fault]:
    """Pictures without a hint, and hints without a picture."""
    missing = [
        Fault(key=key, problem="hint missing", text=f"{path} has no hint {hint_folder.name}/{key}.*")
        for key, path in images.items()
        if key not in hints
    ]
    extra = [
        Fault(key=key, problem="image missing", text=f"the hint {path} has no picture")
        for key, path in hints.items()
        if key not in images
    ]
    return missing + extra


def pair(key: str, image: Path, hint: Path | None, caption: Path | None) -> Pair:
    """One pair of files."""
    return Pair(
        key=key,
        image=file_picture(image),
        hint=file_picture(hint) if hint else None,
        caption=read_caption(caption) if caption else None,
    )


def read_caption(path: Path) -> str:
    """The text of a file on one line. Raises DataError for bytes that are no UTF-8."""
    try:
        return cleaned(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8 ({error.reason}). Save it as UTF-8.") from error


def below(path: Path, names: tuple[str, ...]) -> Path | None:
    """The first of these folders that there is."""
    return next((path / name for name in names if (path / name).is_dir()), None)


def files(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """The files with these suffixes in a folder, hidden ones left out."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    return (path for path in found if not path.name.startswith(".") and path.is_file())


def by_stem(folder: Path, suffixes: frozenset[str], others: Collection[Path | None] = ()) -> dict[str, Path]:
    """Path below the folder without suffix -> file, at any depth but not in the other folders, sorted.

    Raises DataError where two files have the same name but for their suffix.
    """
    found: dict[str, Path] = {}
    for path in sorted(walk(folder, suffixes, others)):
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise DataError(f"{found[key]} and {path} have the same name. Rename or remove one of them.")
        found[key] = path
    return found


def walk(folder: Path, suffixes: frozenset[str], others: Collection[Path | None] = ()) -> Iterator[Path]:
    """Files at any depth, without hidden folders and the others; links to folders are not followed."""
    yield from files(folder, suffixes)
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith(".") and child not in others:
            yield from walk(child, suffixes, others)
