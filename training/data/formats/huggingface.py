"""Data sets of Hugging Face's library: a folder of `save_to_disk`, or a name on the hub, which is then downloaded.

Columns as in diffusers' examples: image, conditioning_image, text.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ...errors import DataError
from ..pairs import Fault, Pair
from ..pictures import Encoded
from .listing import CAPTION, HINT, IMAGE, Columns, first

SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` writes."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A picture in a table."""

    table: Any
    row: int
    column: str

    def open(self) -> IO[bytes]:
        """Its encoded bytes."""
        cell = self.table[self.row][self.column]
        if cell is None:
            raise OSError("the cell is empty")
        return io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else Path(cell["path"]).open("rb")

    def stamp(self) -> str:
        """The table's fingerprint and the place in it."""
        return f"{self.table._fingerprint}:{self.row}:{self.column}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of a table as pairs, made when asked for."""

    name: str
    table: Any
    columns: Columns
    faults: tuple[Fault, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int, /) -> Pair:
        if not 0 <= index < len(self.table):
            raise IndexError(index)
        caption = self.table[index : index + 1][self.columns.caption][0] if self.columns.caption else None
        return Pair(
            key=f"{index:08d}",
            image=self.picture(index, self.columns.image),
            hint=self.picture(index, self.columns.hint) if self.columns.hint else None,
            caption=" ".join(str(caption).split()) if caption is not None else None,
        )

    def picture(self, row: int, column: str) -> Encoded:
        """One cell."""
        source = Cell(table=self.table.select_columns([column]), row=row, column=column)
        return Encoded(name=f"{self.name}[{row}].{column}", source=source)


def recognises(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any((path / name).is_file() for name in SAVED)


def read(path: str) -> Table:
    """The data set in a folder, or of this name; its split "train" where it has several."""
    import datasets
    from datasets.exceptions import DatasetsError

    if Path(path).is_dir() and not recognises(Path(path)):
        raise DataError(f"{path} is no folder of datasets' save_to_disk; expected state.json in it.")
    try:
        loaded: Any = datasets.load_from_disk(path) if Path(path).is_dir() else datasets.load_dataset(path)
    except (OSError, ValueError, DatasetsError) as error:
        raise DataError(f"The data set {path} cannot be loaded: {error}") from error
    if isinstance(loaded, dict):
        if "train" not in loaded:
            raise DataError(f"The data set {path} has the splits {', '.join(loaded)}; expected train.")
        loaded = loaded["train"]
    columns = columns_of(path, loaded.column_names)
    for column in (columns.image, columns.hint):
        if column:
            loaded = loaded.cast_column(column, datasets.Image(decode=False))
    return Table(name=path, table=loaded, columns=columns)


def columns_of(path: str, names: Sequence[str]) -> Columns:
    """Which column is which. Raises DataError where there are no pictures."""
    image = first(names, IMAGE)
    if image is None:
        raise DataError(f"The data set {path} has the columns {', '.join(names)}; expected one called image.")
    return Columns(image=image, hint=first(names, HINT), caption=first(names, CAPTION))
