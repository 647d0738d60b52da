"""Everyone who is told what happens in a run: terminal, trackers, report."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator

from .config import TrainConfig
from .console import Console
from .events import Event
from .report.report import Report
from .trackers import Trackers

Observer = Callable[[Event], None]


@contextmanager
def observed(config: TrainConfig, accelerator: Accelerator) -> Generator[Observer]:
    """Call what this gives with each event of the run. In a run of several processes only the main one tells."""
    if not accelerator.is_main_process:
        yield lambda _: None
        return
    report, trackers = Report(Path(config.run.output)), Trackers(accelerator, config)
    told: list[Event] = []
    with Console(config.run) as console:

        def tell(event: Event) -> None:
            told[:] = [event]
            for observer in (console, trackers, report):
                observer(event)

        try:
            yield tell
        finally:
            if told:
                report.write()
            trackers.close()
