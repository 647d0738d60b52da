"""What is left of a run on the graph: a text, and a picture of its curves.

Shapes: H W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..training.events import scored
from ..training.report.report import NAME as PAGE
from .train_live import clock
from .train_run import Trained

Entry = Mapping[str, Any]
"""An event as the history has it."""
Points = Sequence[tuple[float, float]]
"""Step and value."""
WIDTH, HEIGHT, MARGIN = 960, 260, 48
"""Of one panel, in pixels."""
SMOOTH = 0.9
"""How much of the mean a new value leaves."""
PAPER, INK, PALE = (250, 250, 250), (60, 60, 60), (215, 215, 215)
COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189))


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A diagram over the steps."""

    title: str
    curves: Mapping[str, Points]


def of_kind(history: Sequence[Entry], kind: str) -> list[Entry]:
    """Events of one kind."""
    return [entry for entry in history if entry["event"] == kind]


def report(trained: Trained) -> str:
    """The run in a few lines."""
    history, run = trained.history, trained.config.run
    steps = of_kind(history, "StepDone")
    said = [
        f"{trained.path.stem}: {trained.config.target.kind} for {trained.config.base.path}",
        trained.pairs,
        f"{steps[-1]['number'] if steps else 0} steps of {run.batch}, seed {run.seed}, "
        f"learning rate {trained.config.optimizer.learning_rate:g}",
    ]
    if steps:
        last = steps[-10:]
        said.append(f"loss {sum(entry['loss'] for entry in last) / len(last):.4f} at the end")
    said += [
        scored(entry["measure"], entry["scores"], entry["held_out"]) for entry in of_kind(history, "Validated")[-1:]
    ]
    said += [entry["message"] for entry in of_kind(history, "Converged")]
    said += [f"! {entry['message']}" for entry in of_kind(history, "Alarm")]
    said += [f"{clock(entry['seconds'])} for the last part" for entry in of_kind(history, "Finished")[-1:]]
    return "\n".join([*said, str(trained.path.with_name(PAGE)), str(trained.path)])


def panels(history: Sequence[Entry]) -> Iterator[Panel]:
    """Loss, gap and fidelity, as far as they were measured."""
    losses = [(entry["number"], entry["loss"]) for entry in of_kind(history, "StepDone")]
    if losses:
        yield Panel(title="loss", curves={"each reading": losses, "smoothed": smoothed(losses)})
    probes = [(entry["number"], entry["values"]) for entry in of_kind(history, "Probed")]
    names = {"other_hint": "with another picture's hint", "no_control": "without control"}
    gaps = {text: [(n, values[key]) for n, values in probes if key in values] for key, text in names.items()}
    if probes:
        yield Panel(title="how much larger the loss is", curves={k: v for k, v in gaps.items() if v})
    drawn = of_kind(history, "Validated")
    if drawn:
        name = drawn[-1]["measure"]
        parts = {name: name, "floor": "without control", "ceiling": "real pictures"}
        curves = {text: [(e["number"], e["scores"][key]) for e in drawn] for key, text in parts.items()}
        yield Panel(title=f"fidelity: {name}", curves=curves)


def smoothed(points: Points) -> Points:
    """A running mean."""
    found: list[tuple[float, float]] = []
    for step, value in points:
        found.append((step, value if not found else SMOOTH * found[-1][1] + (1 - SMOOTH) * value))
    return found


def plot(history: Sequence[Entry]) -> Tensor:
    """All panels below each other: 1 H W 3 in [0, 1]."""
    found = list(panels(history)) or [Panel(title="nothing was measured", curves={})]
    picture = Image.new("RGB", (WIDTH, HEIGHT * len(found)), PAPER)
    for number, panel in enumerate(found):
        draw(ImageDraw.Draw(picture), panel, number * HEIGHT)
    return torch.from_numpy(np.asarray(picture).copy())[None].float() / 255


def draw(canvas: ImageDraw.ImageDraw, panel: Panel, top: int) -> None:
    """One panel, its upper edge at `top`."""
    font, x = ImageFont.load_default(14), MARGIN
    left, right, upper, lower = MARGIN, WIDTH - MARGIN // 2, top + MARGIN, top + HEIGHT - MARGIN // 2
    canvas.text((x, top + 8), panel.title, fill=INK, font=font)
    points = [point for curve in panel.curves.values() for point in curve]
    if not points:
        return
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high, first, last = min(values), max(values), min(steps), max(steps)
    for value, y in ((high, upper), (low, lower)):
        canvas.line((left, y, right, y), fill=PALE)
        canvas.text((2, y - 8), f"{value:.3f}", fill=INK, font=font)
    canvas.text((left, lower + 4), f"step {first:g}", fill=INK, font=font)
    canvas.text((right, lower + 4), f"{last:g}", fill=INK, font=font, anchor="ra")
    x += round(font.getlength(panel.title)) + 24
    for colour, (name, curve) in zip(COLOURS, panel.curves.items(), strict=False):
        across, down = (right - left) / ((last - first) or 1), (lower - upper) / ((high - low) or 1)
        places = [(left + (step - first) * across, lower - (value - low) * down) for step, value in curve]
        canvas.line(places, fill=colour, width=2)
        for place in places if len(places) < WIDTH // 16 else ():
            canvas.circle(place, 2, fill=colour)
        canvas.text((x, top + 8), name, fill=colour, font=font)
        x += round(font.getlength(name)) + 24
