"""Data sets of Hugging Face's library: a folder of `save_to_disk`, or a name on the hub, which is then downloaded.

Columns as in diffusers' examples: image, conditioning_image, text.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from ...errors import DataError
from ..pairs import Fault, Pair
from ..pictures import Encoded
from .caption import caption_of
from .listing import CAPTION, HINT, IMAGE, Columns, first

SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` writes."""
TEXTS = frozenset(("string", "large_string", "string_view", "null"))
"""Arrow's names of types that are texts, or empty."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A picture in a table."""

    table: Any
    """Of this column alone: a row that is read has nothing else."""
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
        caption = self.columns.caption
        return Pair(
            key=f"{index:08d}",
            image=self.picture(index, self.columns.image),
            hint=self.picture(index, self.columns.hint) if self.columns.hint else None,
            caption=caption_of(self.parts[caption][index][caption]) if caption else None,
        )

    @cached_property
    def parts(self) -> Mapping[str, Any]:
        """Column -> the table of it alone."""
        used = (self.columns.image, self.columns.hint, self.columns.caption)
        return {column: self.table.select_columns([column]) for column in used if column}

    def picture(self, row: int, column: str) -> Encoded:
        """One cell."""
        source = Cell(table=self.parts[column], row=row, column=column)
        return Encoded(name=f"{self.name}[{row}].{column}", source=source)


def recognises(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any((path / name).is_file() for name in SAVED)


def read(path: str) -> Table:
    """The data set in a folder, or of this name; its split "train" where it has several."""
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise DataError(
            f"The data set {path} needs a package that is not installed. Run: python -m pip install datasets"
        ) from error
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
    if columns.caption:
        check_texts(path, columns.caption, loaded.features.arrow_schema.field(columns.caption).type)
    for column in (columns.image, columns.hint):
        if column:
            loaded = loaded.cast_column(column, datasets.Image(decode=False))
    return Table(name=path, table=loaded, columns=columns)


def check_texts(path: str, column: str, kind: Any) -> None:
    """Raise DataError for a column of captions that has neither texts nor lists of them, by its Arrow type."""
    if str(getattr(kind, "value_type", kind)) not in TEXTS:
        raise DataError(
            f"The data set {path} has the type {kind} in its column {column}; expected texts or lists of texts. "
            "Rename the column, or convert it."
        )


def columns_of(path: str, names: Sequence[str]) -> Columns:
    """Which column is which. Raises DataError where there are no pictures."""
    image = first(names, IMAGE)
    if image is None:
        raise DataError(f"The data set {path} has the columns {', '.join(names)}; expected one called image.")
    return Columns(image=image, hint=first(names, HINT), caption=first(names, CAPTION))
