"""`RunState`: everything of a control that lives for one sampling run.

Shapes: C channels, H W latent, L tokens, D width. One evaluation has R rows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..cn_core.modulation.run import Run, step_of
from ..cn_core.modulation.schedule import resolve, strength_at
from ..cn_core.modulation.settings import Modulation
from ..cn_core.modulation.stacking import relative_change
from ..cn_core.modulation.window import Window, active, active_steps
from .areas import frame_window
from .effect import Calibration
from .hints import Encoded
from .sources.source import Call, Control, mapped

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Residuals of an earlier evaluation."""

    control: Control
    step: float
    sigma: float


@dataclass(kw_only=True, eq=False)
class RunState:
    """Made before a run, dropped after it."""

    sampling: Any
    """The model's noise schedule (the host's ModelSampling)."""
    dtype: torch.dtype
    """In which the model computes."""
    name: str
    modulation: Modulation
    window: Window
    percent_to_sigma: Callable[[float], float]
    encoded: Encoded | None = None
    steps: Run | None = None
    """This run's sigmas, known from the first evaluation on."""
    knots: tuple[tuple[float, float], ...] = ()
    """The schedule in steps of this run."""
    kept: dict[object, Kept] = field(default_factory=dict)
    reused: int = 0
    evaluated: int = 0
    moved: list[float] = field(default_factory=list)
    """How far residuals had moved each time they were computed again, relative to their size."""
    ended: bool = False
    """The window does not open again."""
    freed: bool = False
    """The network's memory has been given back."""
    calibration: Calibration | None = None

    def begin(self, sigma: float, options: dict[str, Any]) -> Run:
        """Learn the run's sigmas, resolve the schedule against them, and say in the log when the control acts."""
        if self.steps is None:
            sigmas = options.get("sample_sigmas")
            listed = (sigma, 0.0) if sigmas is None else tuple(sigmas.tolist())
            self.steps = Run(sigmas=listed, percent_to_sigma=self.percent_to_sigma)
            if self.modulation.schedule is not None:
                self.knots = resolve(self.modulation.schedule, self.steps)
            self.announce(self.steps)
        return self.steps

    def announce(self, run: Run) -> None:
        """One line; a warning when no step lies in the window."""
        count, acting = len(run.sigmas) - 1, active_steps(self.window, run)
        if not acting:
            logger.warning(
                "%s: no control, none of the %d steps of this run lies in its window, %s %g to %g. Widen it, or give "
                "it in steps or in percent of the run (ControlNet Window).",
                *(self.name, count, self.window.unit, self.window.start, self.window.end),
            )
        elif len(acting) < count:
            logger.info("%s: acts in steps %d to %d (of 0 to %d).", self.name, acting[0], acting[-1], count - 1)

    def strength(self, sigma: float, options: dict[str, Any]) -> float:
        """What the schedule multiplies the strength by at this sigma; 0 outside the window."""
        run = self.begin(sigma, options)
        if not active(self.window, sigma, run):
            self.ended = not any(active(self.window, later, run) for later in run.sigmas if later < sigma)
            return 0.0
        if not self.knots or self.modulation.schedule is None:
            return 1.0
        return strength_at(self.knots, step_of(sigma, run.sigmas), self.modulation.schedule.interpolation)

    def residuals(self, call: Call, compute: Callable[[], Control]) -> Control:
        """Computed, or those of an earlier evaluation where the settings allow it; fresh tensors either way."""
        self.evaluated += 1
        if not self.modulation.reuse.on or self.steps is None:
            return compute()
        prompts = (tuple(call.options.get("uuids", ())), tuple(call.options.get("cond_or_uncond", ())))
        key = (*prompts, frame_window(call.options, call.batch), call.x.shape)
        sigma = float(call.sigmas[0])
        step = step_of(sigma, self.steps.sigmas)
        kept = self.kept.get(key)
        if kept is not None and self.spares(kept, step, sigma):
            self.reused += 1
            return cloned(kept.control)
        control = compute()
        if kept is not None:
            self.moved += changes(control, kept.control)
        self.forget(step, sigma)
        self.kept[key] = Kept(control=cloned(control), step=step, sigma=sigma)
        return control

    def spares(self, kept: Kept, step: float, sigma: float) -> bool:
        """These residuals may be taken again."""
        moved = abs(math.log(kept.sigma / sigma)) if sigma > 0 else math.inf
        return self.modulation.reuse.spares(steps=abs(step - kept.step), log_sigma=moved)

    def forget(self, step: float, sigma: float) -> None:
        """Drop what no evaluation will ask for: the windows of a video may lie elsewhere in every step."""
        recent = self.modulation.reuse.steps
        self.kept = {
            key: kept
            for key, kept in self.kept.items()
            if abs(step - kept.step) <= recent or self.spares(kept, step, sigma)
        }

    def report(self) -> str | None:
        """What reuse spared and what it cost, if there was any."""
        if not self.reused:
            return None
        error = f"{100 * sum(self.moved) / len(self.moved):.1f} %" if self.moved else "an unknown part"
        return (
            f"{self.name}: computed {self.evaluated - self.reused} of {self.evaluated} evaluations; when residuals "
            f"were computed again they had moved by {error} of their size on average."
        )


def cloned(control: Control) -> Control:
    """Fresh tensors and lists."""
    return mapped(control, torch.clone)


def changes(new: Control, old: Control) -> list[float]:
    """RMS of the difference over RMS, for each residual."""
    pairs = ((a, b) for key in new for a, b in zip(new[key], old[key], strict=True))
    return [relative_change(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor)]
