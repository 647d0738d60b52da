"""From settings to pairs: which format a data set has, and reading it."""

from __future__ import annotations

from pathlib import Path

from ...config import DataConfig
from ...errors import DataError
from ..pairs import Chosen, Kept, Pairs, check, without
from . import folder, huggingface, listing, shards
from .tiny_world import TinyWorld

COMPOSITIONS = 30_000
"""Of the tiny world, where nothing else is said."""


def open_pairs(config: DataConfig) -> Pairs:
    """All pairs that the settings name. Raises DataError for a data set that is empty or incomplete."""
    pairs = scan(config)
    check(pairs)
    if config.count and len(pairs) < config.count:
        raise DataError(f"{pairs.name} has {len(pairs)} pairs, and data.count asks for {config.count}.")
    if config.hints == "given" and pairs[0].hint is None:
        raise DataError(
            f'{pairs.name} has no hints. Set data.hints to the preprocessor that makes them, such as "canny".'
        )
    if config.captions == "given" and not any(pairs[row].caption for row in range(len(pairs))):
        raise DataError(
            f'{pairs.name} has no captions, or all are empty. Set data.captions to "empty", "default" or "automatic".'
        )
    return pairs


def scan(config: DataConfig) -> Pairs:
    """The same with all faults, for those who list them."""
    kind = config.format if config.format != "auto" else format_of(config.path)
    pairs = read(kind, config)
    if config.quarantine:
        pairs = without(pairs, quarantined(Path(config.quarantine)))
    return Chosen(whole=pairs, rows=range(min(config.count, len(pairs)))) if config.count else pairs


def read(kind: str, config: DataConfig) -> Pairs:
    """A data set of a known format. Hints that are not used are not missed."""
    if kind == "tiny-world":
        return Kept(whole=TinyWorld(count=config.count or COMPOSITIONS))
    if kind == "huggingface":
        return Kept(whole=huggingface.read(config.path))
    path, hints = existing(config.path), config.hints == "given"
    if kind == "pairs":
        return folder.read(path, hints=hints)
    if kind == "webdataset":
        return shards.read(path, hints=hints)
    wanted = (listing.FILL50K,) if kind == "fill50k" else listing.METADATA
    if not any(list(path.glob(name)) or list(path.glob(f"*/{name}")) for name in wanted):
        raise DataError(f"{path} is no data set of the format {kind}: there is no {' or '.join(wanted)} in it.")
    return (listing.read_fill50k if kind == "fill50k" else listing.read_imagefolder)(path, hints=hints)


def existing(name: str) -> Path:
    """The path, which exists."""
    path = Path(name).expanduser()
    if not name or not path.exists():
        what = f"The data set {name!r} is not there." if name else "No data set is named."
        hub = " Names on the hub need data.format huggingface." if name else ""
        raise DataError(f"{what} Set data.path to a folder of pairs.{hub}")
    return path


def format_of(name: str) -> str:
    """The format of a data set, by what lies in its folder. Raises DataError where nothing fits."""
    path = existing(name)
    if path.is_dir() and (path / listing.FILL50K).is_file():
        return "fill50k"
    if path.is_dir() and any(list(path.glob(one)) or list(path.glob(f"*/{one}")) for one in listing.METADATA):
        return "imagefolder"
    if path.is_dir() and huggingface.recognises(path):
        return "huggingface"
    if shards.recognises(path):
        return "webdataset"
    if folder.recognises(path):
        return "pairs"
    raise DataError(
        f"{name} is no data set that is known: expected images/ with hints/, prompt.json, metadata.jsonl, a folder of "
        "save_to_disk or tar archives. Names on the hub need data.format huggingface."
    )


def quarantined(path: Path) -> frozenset[str]:
    """The keys in a list that `lint` wrote: one on each line."""
    try:
        return frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The quarantine list {path} cannot be read: {error}.") from error
