"""What happened in a run, as lines of JSON in its output folder; resuming forgets what came after the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ..events import Event, StepDone, plain
from .output import write_text

NAME = "history.jsonl"


class History:
    """The file of one run."""

    def __init__(self, output: Path) -> None:
        self.path = output / NAME

    def add(self, event: Event) -> None:
        """Append an event; steps without a reading of the loss are left out."""
        if isinstance(event, StepDone) and event.loss is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(event)) + "\n")

    def read(self) -> Iterator[dict[str, Any]]:
        """Whole lines, oldest first."""
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                yield cast("dict[str, Any]", json.loads(line))
            except ValueError:  # the last line of a run that was killed
                continue

    def cut(self, step: int) -> None:
        """Forget what happened after this many steps."""
        kept = [json.dumps(entry) + "\n" for entry in self.read() if entry["number"] <= step]
        if self.path.exists():
            write_text(self.path, "".join(kept))
