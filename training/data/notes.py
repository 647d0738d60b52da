"""Notes that commands leave in folders which they write, to know them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from ..errors import DataError


def read_note(path: Path, *names: str) -> dict[str, Any]:
    """A JSON object that has these names. Raises DataError for a file that is none."""
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}). Choose another folder.") from error
    if not isinstance(found, dict) or not found.keys() >= {*names}:
        raise DataError(f"{path} has no {', '.join(names)}: no command wrote it. Choose another folder.")
    return cast("dict[str, Any]", found)
