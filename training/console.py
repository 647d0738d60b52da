"""A run in the terminal: a live line with loss, speed and what was measured; plain lines where there is none."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .config import RunConfig
from .events import (
    Alarm,
    Converged,
    Event,
    Finished,
    MicroBatchHalved,
    Probed,
    Resumed,
    Saved,
    StepDone,
    Validated,
    scored,
)

PAUSE = 10.0
"""Seconds between lines where there is no terminal."""
SMOOTH = 0.9
STYLES: dict[type[object], str] = {
    Alarm: "bold yellow",
    MicroBatchHalved: "yellow",
    Converged: "bold green",
    Validated: "cyan",
    Saved: "dim",
    Resumed: "dim",
}


class Console:
    """Told each event of a run. Used in a `with` statement, which ends the live line."""

    def __init__(self, config: RunConfig, terminal: Terminal | None = None) -> None:
        self.config = config
        self.terminal = terminal or Terminal(highlight=False)
        self.progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.terminal,
            speed_estimate_period=300,
            disable=not self.terminal.is_terminal,
        )
        self.task: TaskID = self.progress.add_task("", total=config.steps, figures="")
        self.figures: dict[str, str] = {}
        self.loss = self.seconds = float("nan")
        self.spoken = 0.0

    def __enter__(self) -> Console:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        """Show it."""
        self.note(event)
        if isinstance(event, StepDone | Resumed):
            self.progress.update(self.task, completed=event.number, figures="  ".join(self.figures.values()))
        if isinstance(event, StepDone):
            now = time.monotonic()
            if event.loss is not None and not self.terminal.is_terminal and now - self.spoken >= PAUSE:
                self.spoken = now
                line = f"{event.number}/{self.config.steps}  {'  '.join(self.figures.values())}"
                self.terminal.print(line, markup=False, soft_wrap=True)
        elif said := words(event):
            self.terminal.print(said, style=STYLES.get(type(event)), markup=False, soft_wrap=True)

    def note(self, event: Event) -> None:
        """Take in its figures."""
        if isinstance(event, StepDone):
            self.seconds = event.seconds if self.seconds != self.seconds else smoothed(self.seconds, event.seconds)
            self.figures["speed"] = f"{self.config.batch / max(self.seconds, 1e-9):.3g} pairs/s"
            if event.loss is not None:
                self.loss = event.loss if self.loss != self.loss else smoothed(self.loss, event.loss)
                self.figures["loss"] = f"loss {self.loss:.4f}  lr {event.learning_rate:.2g}"
        elif isinstance(event, Probed):
            gap = event.values.get("other_hint", event.values["no_control"])
            self.figures["gap"] = f"gap {gap:.4f}"
        elif isinstance(event, Validated) and event.measure:
            self.figures["fidelity"] = f"{event.measure} {event.scores[event.measure]:.3f}"


def smoothed(old: float, new: float) -> float:
    """A running mean."""
    return SMOOTH * old + (1 - SMOOTH) * new


def words(event: Event) -> str | None:
    """A line for what does not happen at every step; None: nothing to say."""
    if isinstance(event, Resumed):
        return f"Going on after step {event.number}, from {event.path}"
    if isinstance(event, MicroBatchHalved):
        return f"Step {event.number + 1} did not fit into memory: micro-batches of {event.micro_batch} from here on"
    if isinstance(event, Saved):
        return f"Step {event.number}: saved {event.path}"
    if isinstance(event, Alarm):
        return f"Step {event.number}, {event.kind}: {event.message}"
    if isinstance(event, Converged):
        return event.message
    if isinstance(event, Validated):
        return f"Step {event.number}: {scored(event.measure, event.scores, event.held_out)}"
    if isinstance(event, Finished):
        how = "Stopped" if event.stopped else "Finished"
        return f"{how} after {event.number} steps and {event.seconds / 60:.1f} minutes: {event.path}"
    return None
