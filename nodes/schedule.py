"""Option nodes for when and how strongly a ControlNet acts: window, schedule as a text, keyframes."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from comfy_api.latest import io

from ..cn_core.errors import ControlNetKitError
from ..cn_core.modulation.schedule import Interpolation, Keyframe, Schedule, Unit, parse
from ..cn_core.modulation.settings import Modulation
from ..cn_core.modulation.window import Window
from .options import problem, schema

UNITS: dict[str, Unit] = {"% of the noise schedule": "schedule", "% of this run": "run", "steps of this run": "step"}
"""What the nodes show -> `schedule.Unit`."""


def place(number: float, unit: str) -> float:
    """What a node's number is in `schedule.Unit`: percent become fractions; raises ControlNetKitError above 100 %."""
    if UNITS[unit] == "step":
        return number
    if number > 100:
        raise ControlNetKitError(
            f"{number:g} {unit}: percent go from 0 to 100. Choose another number, or the unit steps."
        )
    return number / 100


class ControlNetWindow(io.ComfyNode):
    """Start and end in three units."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "ControlNetWindow",
            "ControlNet Window",
            "When the ControlNet acts, in the unit that you think in. Replaces start_percent and end_percent.",
            [
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=10000.0, step=0.1, tooltip="Percent 0 to 100, or a step from 0."
                ),
                io.Float.Input(
                    "end",
                    default=100.0,
                    min=0.0,
                    max=10000.0,
                    step=0.1,
                    tooltip="Percent 0 to 100, or the first step without control.",
                ),
                io.Combo.Input(
                    "unit",
                    options=list(UNITS),
                    default="% of this run",
                    tooltip="Of this run: of the steps that the sampler really makes, at any denoise and schedule.",
                ),
            ],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, start: float, end: float, unit: str, options: Modulation | None = None
    ) -> io.NodeOutput:
        """With another window."""
        window = Window(start=place(start, unit), end=place(end, unit), unit=UNITS[unit])
        return io.NodeOutput(replace(options or Modulation(), window=window))


class ControlNetSchedule(io.ComfyNode):
    """Strength over the run, as a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "ControlNetSchedule",
            "ControlNet Schedule",
            "How the strength changes during the run. It multiplies the strength of Apply ControlNet.",
            [
                io.String.Input(
                    "schedule",
                    default="1.0@0%, 0@100%",
                    tooltip="STRENGTH@PLACE with commas; a place is 0.3 (of the noise schedule), 30% (of this run) or "
                    "step 12.",
                ),
                io.Combo.Input(
                    "interpolation",
                    options=list(get_args(Interpolation)),
                    default="linear",
                    tooltip="Between two places: hold the first strength, or go over in a line or a cosine.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, schedule: str | None
    ) -> bool | str:
        """Read the text before anything runs."""
        return problem(parse, schedule)

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, schedule: str, interpolation: Interpolation, options: Modulation | None = None
    ) -> io.NodeOutput:
        """With another schedule."""
        return io.NodeOutput(replace(options or Modulation(), schedule=parse(schedule, interpolation)))


class ControlNetKeyframe(io.ComfyNode):
    """One point of the schedule, for those who prefer nodes to text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "ControlNetKeyframe",
            "ControlNet Keyframe",
            "Adds a keyframe to the schedule: chain several, in the order of the run.",
            [
                io.Float.Input(
                    "strength", default=1.0, min=-10.0, max=10.0, step=0.01, tooltip="Multiplies Apply's strength."
                ),
                io.Float.Input(
                    "at", default=0.0, min=0.0, max=10000.0, step=0.1, tooltip="Percent 0 to 100, or a step from 0."
                ),
                io.Combo.Input("unit", options=list(UNITS), default="% of this run", tooltip="What `at` counts."),
                io.Combo.Input(
                    "interpolation",
                    options=list(get_args(Interpolation)),
                    default="linear",
                    tooltip="Between keyframes; the last node of the chain decides.",
                ),
            ],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, strength: float, at: float, unit: str, interpolation: Interpolation, options: Modulation | None = None
    ) -> io.NodeOutput:
        """With one keyframe more."""
        options = options or Modulation()
        before = options.schedule.keyframes if options.schedule else ()
        keyframe = Keyframe(at=place(at, unit), unit=UNITS[unit], strength=strength)
        return io.NodeOutput(
            replace(options, schedule=Schedule(keyframes=(*before, keyframe), interpolation=interpolation))
        )
