"""Writes the report of a run whenever there is something new to see."""

from __future__ import annotations

from pathlib import Path

from ..events import Alarm, Converged, Event, Finished, Validated
from ..output.output import write_text
from .album import FOLDER, Album
from .page import html

NAME = "report.html"


class Report:
    """Told each event of a run, after the run's history has it."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.album = Album(folder=output / FOLDER)

    def __call__(self, event: Event) -> None:
        """Keep pictures, and write the page."""
        if isinstance(event, Validated):
            self.album.add(event)
        if isinstance(event, Validated | Alarm | Converged | Finished):
            self.write()

    def write(self) -> Path:
        """The page as of now; whole or not at all."""
        path = self.output / NAME
        write_text(path, html(self.output))
        return path
