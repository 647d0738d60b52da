"""How timesteps are drawn: from a level in [0, 1) to a timestep, through the inverse of a cumulative distribution.

Shapes: B pairs, T timesteps of the schedule.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

BINS = 20
"""Ranges of timesteps that the learned distribution tells apart."""
MEMORY = 0.99
"""Decay of the running mean of squared losses."""
UNIFORM_SHARE = 0.1
"""Of the learned distribution, so that no timestep is forgotten."""


class Timesteps:
    """The distribution of timesteps, 0 to T - 1.

    uniform: all alike. cubic: t = (1 - u^3) T, mostly noisy ones, where layout is decided (T2I-Adapter,
    arXiv 2302.08453, section 3.4). learned: in proportion to the root of the mean squared loss, each loss divided by
    its probability, which leaves the objective as it is with less variance (Nichol & Dhariwal, arXiv 2102.09672,
    section 3.3); here by ranges of timesteps.
    """

    def __init__(self, kind: Literal["uniform", "cubic", "learned"], steps: int) -> None:
        self.kind = kind
        self.steps = steps
        self.squares = torch.zeros(BINS, dtype=torch.float64)
        """Running means of squared losses; 0 where none was seen."""

    def probabilities(self) -> Tensor:
        """Of each range, BINS float64; uniform until every range has been seen."""
        uniform = torch.full((BINS,), 1 / BINS, dtype=torch.float64)
        if not (self.squares > 0).all():
            return uniform
        roots = self.squares.sqrt()
        return UNIFORM_SHARE * uniform + (1 - UNIFORM_SHARE) * roots / roots.sum()

    def choose(self, levels: Tensor) -> Tensor:
        """Levels in [0, 1), B -> timesteps, B int64."""
        if self.kind == "cubic":
            levels = 1 - levels**3
        if self.kind == "learned":
            cumulative = self.probabilities().cumsum(0)
            bins = torch.searchsorted(cumulative, levels.double(), right=True).clamp(max=BINS - 1)
            start = cumulative[bins] - self.probabilities()[bins]
            levels = ((bins + (levels - start) / self.probabilities()[bins]) / BINS).float()
        return (levels * self.steps).long().clamp(0, self.steps - 1)

    def weight(self, timesteps: Tensor) -> Tensor | None:
        """What each loss is multiplied by, B float32; None: nothing."""
        if self.kind != "learned":
            return None
        return (1 / (BINS * self.probabilities()))[self.bins(timesteps)].float()

    def bins(self, timesteps: Tensor) -> Tensor:
        """The range of each timestep."""
        return timesteps * BINS // self.steps

    def learn(self, sums: Tensor, counts: Tensor) -> None:
        """Take in a step's squared losses, summed in each range (BINS), and how many there were (BINS)."""
        mean = sums.double() / counts.clamp(min=1)
        old = torch.where(self.squares > 0, self.squares, mean)
        self.squares = torch.where(counts > 0, MEMORY * old + (1 - MEMORY) * mean, self.squares)
