"""What the node shows while it trains: progress with a picture, and a line of text with loss and remaining time."""

from __future__ import annotations

import logging
import time
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
from PIL import Image
from server import PromptServer

from ..training.events import Alarm, Converged, Event, MicroBatchHalved, Probed, Resumed, StepDone, Validated, scored
from ..training.watch.sampling import Pictures

logger = logging.getLogger(__name__)

PREVIEW_PX = 512
"""Longest side of a preview."""
SHOWN = 4
"""Pictures side by side."""


class Live:
    """Of one run."""

    def __init__(self, node_id: str | None, steps: int) -> None:
        self.node_id = node_id
        self.steps = steps
        self.bar = comfy.utils.ProgressBar(steps, node_id=node_id)
        self.first: tuple[int, float] | None = None
        """Step and time of the first event, for the remaining time."""
        self.notes: dict[str, str] = {}
        """What was said last, by kind."""

    def tell(self, event: Event) -> None:
        """Show an event; raises InterruptProcessingException when the user cancelled."""
        preview = picture(event)
        if said := note(event):
            self.notes[type(event).__name__] = said
        if isinstance(event, Alarm | Converged):
            logger.warning("%s", event.message)
        if isinstance(event, StepDone) and event.loss is not None:
            self.notes["StepDone"] = self.step(event)
        if said or preview or (isinstance(event, StepDone) and event.loss is not None):
            self.say("\n".join(self.notes.values()))
        if preview is not None:
            shown: Any = ("JPEG", preview, PREVIEW_PX)
            self.bar.update_absolute(event.number, self.steps, shown)
        elif isinstance(event, StepDone):
            self.bar.update_absolute(event.number, self.steps)

    def progress(self, what: str, done: int, total: int) -> None:
        """Of the caches; raises InterruptProcessingException when the user cancelled."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.say(f"{what}: {done} of {total}")

    def step(self, event: StepDone) -> str:
        """Step, loss and the time that the rest takes."""
        now = time.monotonic()
        self.first = self.first or (event.number, now)
        pace = (now - self.first[1]) / max(event.number - self.first[0], 1) or event.seconds
        left = pace * (self.steps - event.number)
        return f"step {event.number} of {self.steps}, loss {event.loss:.4f}, {pace:.2f} s a step, {clock(left)} left"

    def say(self, text: str) -> None:
        """On the node, if there is a server."""
        if self.node_id is not None and hasattr(PromptServer, "instance"):
            PromptServer.instance.send_progress_text(text, self.node_id)


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def note(event: Event) -> str:
    """An event in a line; nothing for those that need none."""
    if isinstance(event, Probed):
        values = event.values
        gap = values.get("other_hint", values["no_control"])
        return f"loss gap {gap:.4f} ({gap / max(values['right'] + values['no_control'], 1e-12):.1%})"
    if isinstance(event, Validated):
        return scored(event.measure, event.scores, event.held_out)
    if isinstance(event, Resumed):
        return f"went on from step {event.number}"
    if isinstance(event, MicroBatchHalved):
        return f"{event.micro_batch} pairs at once, for want of memory"
    return event.message if isinstance(event, Alarm | Converged) else ""


def picture(event: Event) -> Image.Image | None:
    """Of a run's pictures side by side: hints above what was drawn from them, or a preview."""
    if isinstance(event, Validated):
        return Image.fromarray(np.concatenate([row(event.hints), row(event.images)]))
    if isinstance(event, Probed) and event.preview is not None:
        return Image.fromarray(row(event.preview))
    return None


def row(pictures: Pictures) -> Pictures:
    """N H W 3 -> H N*W 3."""
    return np.concatenate(list(pictures[:SHOWN]), axis=1)
