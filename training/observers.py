"""Everyone who is told what happens in a run: terminal, trackers, report."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator

from .config import TrainConfig
from .events import Event
from .report.report import Report
from .trackers import Trackers

Observer = Callable[[Event], None]


@contextmanager
def kept(config: TrainConfig, accelerator: Accelerator) -> Generator[Observer]:
    """What stays of a run, in its output folder and in trackers: call what this gives with each event."""
    report, trackers = Report(Path(config.run.output)), Trackers(accelerator, config)
    told: list[Event] = []

    def tell(event: Event) -> None:
        told[:] = [event]
        trackers(event)
        report(event)

    try:
        yield tell
    finally:
        if told:
            report.write()
        trackers.close()


@contextmanager
def observed(config: TrainConfig, accelerator: Accelerator) -> Generator[Observer]:
    """The same and the terminal. In a run of several processes only the main one tells."""
    if not accelerator.is_main_process:
        yield lambda _: None
        return
    from .console import Console  # needs rich, which ComfyUI does not bring: its node takes `kept`

    with kept(config, accelerator) as keep, Console(config.run) as console:

        def tell(event: Event) -> None:
            console(event)
            keep(event)

        yield tell
