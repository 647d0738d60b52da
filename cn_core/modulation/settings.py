"""`Modulation`: everything between a network's residuals and the model, as one value with neutral defaults.

Shapes: F frames of a mask, h w its size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..errors import ControlNetKitError
from ..image import Resampler, ResizeMode
from .frames import FrameMode, FrameStrengths
from .schedule import Schedule
from .stacking import Stacking
from .weights import LayerWeights
from .window import Window


@dataclass(frozen=True, kw_only=True)
class Reuse:
    """When residuals of an earlier evaluation are taken again instead of being computed."""

    steps: int = 1
    """Compute at every so many steps; 1: at each."""
    log_sigma: float = 0.0
    """Compute when the natural logarithm of sigma has moved this far, if that is sooner or `steps` is 1; 0: never."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.log_sigma < float("inf"):
            raise ControlNetKitError(
                f"Reuse needs steps of at least 1 and a log_sigma of at least 0, got {self.steps} and {self.log_sigma}."
            )

    @property
    def on(self) -> bool:
        """Some evaluation may be spared."""
        return self.steps > 1 or self.log_sigma > 0

    def spares(self, *, steps: float, log_sigma: float) -> bool:
        """Residuals as old as `steps`, their sigma as far away as `log_sigma`, may be taken again."""
        by_steps, by_sigma = steps < self.steps, log_sigma < self.log_sigma
        return (self.steps > 1 and by_steps and (by_sigma or not self.log_sigma)) or (self.steps == 1 and by_sigma)


@dataclass(frozen=True, kw_only=True)
class Modulation:
    """The settings of one control besides hint, strength and the host's window. The defaults change nothing."""

    window: Window | None = None
    """None: the start and end that the host's nodes set, in percent of the noise schedule."""
    schedule: Schedule | None = None
    """Multiplies the strength over the run."""
    weights: LayerWeights = field(default_factory=LayerWeights)
    positive: float = 1.0
    """Multiplies residuals for positive prompts."""
    negative: float = 1.0
    """Multiplies residuals for negative prompts; 0 spares their computation."""
    mask: Tensor | None = None
    """F 1 h w in [0, 1]: where the control acts."""
    resize: ResizeMode | None = None
    """None: crop, with the host's own nearest neighbours."""
    resampler: Resampler = "auto"
    frames: FrameMode = "cycle"
    """Which hint belongs to which latent when there are fewer hints."""
    frame_strengths: FrameStrengths | None = None
    """One multiplier for each latent of the batch."""
    stacking: Stacking = "sum"
    """How residuals join those of the controls before this one."""
    calibrate: bool = False
    """Scale so that strength 1 means the same share of the model's own features for every network."""
    reuse: Reuse = field(default_factory=Reuse)
    free_after_window: bool = False
    """Give the network's memory back as soon as its window has ended."""
    record: bool = False
    """Keep where and how strongly the control acted, for an effect map."""

    @property
    def sided(self) -> bool:
        """Positive and negative prompts are treated differently."""
        return self.positive != self.negative
