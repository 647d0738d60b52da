"""When a ControlNet began to follow its hints: a rule for a series of measurements of the paired loss gap.

The gap is about 0 for a long time, and rises suddenly. The rise is announced as soon as the gap has settled at its new
level, and dated back to where it passed half of it:

1. Each of the last three gaps is significant (three standard errors), and at least 2 % of the loss without control.
2. Control helps: the median of `no_control` over the three is positive.
3. It has settled: the largest of the three is at most 1.5 times the smallest.
4. N is the first measurement from which on all gaps are at least half of the median of the three.

Levels are relative, so the rule is the same for all bases, sizes and conditions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ..events import Probed

LAST = 3
SIGNIFICANT = 3.0
"""Standard errors."""
NOTICED = 0.02
"""Share of the loss without control."""
SETTLED = 1.5
FOLLOWED = 0.25
"""Share of the way from the floor to the ceiling of fidelity that confirms it."""
PICTURES = ("ssim",)
"""Measures of pictures, not of hints: following a hint need not bring them near to their ceiling."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One measurement."""

    number: int
    """Of steps done."""
    other_hint: float
    """How much larger the loss is with another picture's hint."""
    no_control: float
    """How much larger it is without control."""
    error: float
    """Standard error of `other_hint`."""
    loss: float
    """Without control."""

    @classmethod
    def of(cls, probed: Probed) -> Gap:
        """From an event; a single pair has no other hint, and goes by `no_control`."""
        values = probed.values
        return cls(
            number=probed.number,
            other_hint=values.get("other_hint", values["no_control"]),
            no_control=values["no_control"],
            error=values.get("error", 0.0),
            loss=values["right"] + values["no_control"],
        )

    @property
    def relative(self) -> float:
        """`other_hint` as a share of the loss without control."""
        return self.other_hint / self.loss if self.loss > 0 else 0.0

    @property
    def noticed(self) -> bool:
        """Large enough to mean something."""
        return self.other_hint > SIGNIFICANT * self.error and self.relative >= NOTICED


def converged_at(gaps: Sequence[Gap]) -> int | None:
    """The step N since which the hint makes its difference, by the rule above; None: not yet."""
    last = gaps[-LAST:]
    levels = [gap.other_hint for gap in last]
    if len(last) < LAST or not all(gap.noticed for gap in last) or median(gap.no_control for gap in last) <= 0:
        return None
    if max(levels) > SETTLED * min(levels):
        return None
    below = [index for index, gap in enumerate(gaps) if gap.other_hint < median(levels) / 2]
    return gaps[below[-1] + 1 if below else 0].number


def progress(measure: str, scores: Mapping[str, float]) -> float | None:
    """The share of the way from floor to ceiling that a validation's measure has come; None: it does not tell."""
    way = scores.get("ceiling", 0.0) - scores.get("floor", 0.0)
    return None if measure in PICTURES or not way else (scores[measure] - scores["floor"]) / way


def message(number: int, gap: Gap, measure: str, scores: Mapping[str, float]) -> str:
    """What is announced; "" is the measure where no pictures were drawn."""
    said = f"Converged at step {number}: with another picture's hint the loss is {gap.relative:.0%} larger"
    if not measure:
        return f"{said}."
    value, floor, ceiling = (scores[name] for name in (measure, "floor", "ceiling"))
    return f"{said}, and {measure} is {value:.3f} (floor {floor:.3f}, ceiling {ceiling:.3f})."
