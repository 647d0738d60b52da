"""What a report says, read from the output folder of a run: its history and its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from ..config import TrainConfig
from ..output.history import History
from ..output.output import MARKER
from .charts import Chart, Point, Series

SMOOTHED = 0.03
"""Share of the curve over which the loss is averaged."""


@dataclass(frozen=True)
class Facts:
    """Of one run."""

    output: Path

    @cached_property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """As the run has them."""
        found = json.loads((self.output / MARKER).read_text(encoding="utf-8"))
        return cast("Mapping[str, Mapping[str, Any]]", found["config"])

    @cached_property
    def changed(self) -> list[tuple[str, str]]:
        """Settings other than the defaults."""
        defaults = TrainConfig().to_dict()
        return [
            (f"{table}.{key}", json.dumps(value))
            for table, values in self.settings.items()
            for key, value in values.items()
            if json.dumps(value) != json.dumps(defaults.get(table, {}).get(key))
        ]

    @cached_property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """The history."""
        return tuple(History(self.output).read())

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Events of one kind."""
        return [event for event in self.events if event["event"] == kind]

    def column(self, kind: str, name: str) -> list[Point]:
        """A field over the steps, without gaps."""
        return [(event["number"], event[name]) for event in self.of(kind) if event[name] is not None]

    def values(self, kind: str, table: str, name: str) -> list[Point]:
        """A figure of a table of figures over the steps."""
        return [(event["number"], event[table][name]) for event in self.of(kind) if name in event[table]]

    @property
    def last(self) -> int:
        """Steps done."""
        return max((event["number"] for event in self.events), default=0)

    @property
    def marks(self) -> list[tuple[float, str]]:
        """What curves are marked with."""
        return [(event["since"] or event["number"], "converged") for event in self.of("Converged")]

    @property
    def from_nothing(self) -> bool:
        """Whether the run began with a copy that changes nothing."""
        target = self.settings["target"]
        return target["init"] == "base" and target["zero_init"] == "zero"


def charts(facts: Facts) -> list[Chart]:
    """Those that there is something for."""
    made = [fidelity(facts), gap(facts), loss(facts), rate(facts), norm(facts), speed(facts)]
    return [chart for chart in made if any(one.points for one in chart.series)]


def fidelity(facts: Facts) -> Chart:
    """With floor and ceiling."""
    shown = facts.of("Validated")
    name = shown[-1]["measure"] if shown else ""
    bounds = {key: shown[-1]["scores"].get(key, 0.0) if shown else 0.0 for key in ("floor", "ceiling")}
    ends = (0, max(facts.last, 1))
    start = [(0.0, bounds["floor"])] if name and facts.from_nothing else []
    return Chart(
        title="Condition fidelity",
        note="how well pictures drawn from held-out hints follow them, found by making the hint again",
        series=[
            Series(
                name="real pictures",
                points=[(x, bounds["ceiling"]) for x in ends] if name else [],
                colour="c",
                style="dashed",
            ),
            Series(name=name.replace("_", " "), points=start + facts.values("Validated", "scores", name), colour="a"),
            Series(
                name="no control",
                points=[(x, bounds["floor"]) for x in ends] if name else [],
                colour="b",
                style="dashed",
            ),
        ],
        marks=facts.marks,
        zero=True,
        last=facts.last,
    )


def gap(facts: Facts) -> Chart:
    """With its standard error."""
    start = [(0.0, 0.0)] if facts.from_nothing and facts.of("Probed") else []
    band = [
        (event["number"], values["other_hint"] - values["error"], values["other_hint"] + values["error"])
        for event in facts.of("Probed")
        if "error" in (values := event["values"])
    ]
    return Chart(
        title="Loss gap",
        note="how much larger the loss is without the right hint, on the same pairs, noise and timesteps",
        series=[
            Series(
                name="another picture's hint",
                points=start + facts.values("Probed", "values", "other_hint"),
                colour="a",
                band=band,
            ),
            Series(name="no control", points=start + facts.values("Probed", "values", "no_control"), colour="b"),
        ],
        marks=facts.marks,
        zero=True,
        last=facts.last,
    )


def loss(facts: Facts) -> Chart:
    """As it was read, and smoothed."""
    points = facts.column("StepDone", "loss")
    return Chart(
        title="Training loss",
        note="it hardly shows whether hints are followed",
        series=[
            Series(name="mean since the last reading", points=points, colour="a", style="faint"),
            Series(name="smoothed", points=smooth(points), colour="a", style="line"),
        ],
        marks=facts.marks,
        last=facts.last,
    )


def rate(facts: Facts) -> Chart:
    """Of the optimiser."""
    points = facts.column("StepDone", "learning_rate")
    return Chart(title="Learning rate", note="", series=[Series(name="", points=points, colour="a")], zero=True)


def norm(facts: Facts) -> Chart:
    """Before clipping."""
    points = facts.column("StepDone", "gradient_norm")
    series = [
        Series(name="", points=points, colour="a", style="faint"),
        Series(name="", points=smooth(points), colour="a"),
    ]
    return Chart(title="Gradient norm", note="before clipping", series=series, zero=True)


def speed(facts: Facts) -> Chart:
    """Pairs a second."""
    batch = facts.settings["run"]["batch"]
    points = [(step, batch / max(seconds, 1e-9)) for step, seconds in facts.column("StepDone", "seconds")]
    return Chart(
        title="Pairs per second", note="", series=[Series(name="", points=points, colour="a", style="faint")], zero=True
    )


def smooth(points: Sequence[Point]) -> list[Point]:
    """Means over a window around each point; nothing for a few points."""
    reach = round(len(points) * SMOOTHED)
    if reach < 2:
        return []
    values = [y for _, y in points]
    windows = [values[max(index - reach, 0) : index + reach + 1] for index in range(len(values))]
    return [(x, sum(window) / len(window)) for (x, _), window in zip(points, windows, strict=True)]
