"""`TrainConfig`: everything a training run depends on, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .tiny.cache import Condition


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one run; the command line has a flag for each field."""

    output: Path
    """File to write: safetensors with LDM keys."""
    condition: Condition
    """What the hints show."""
    base: Path
    """Folder of the embedded base (assets/)."""
    cache: Path
    """File of encoded compositions; made when it does not exist."""
    compositions: int = 30_000
    """How many to make then."""
    steps: int = 1600
    """Optimiser steps."""
    batch: int = 32
    """Compositions per step."""
    learning_rate: float = 1e-3
    """AdamW's, reached after 2 % of the steps, then falling along a cosine."""
    prompt_dropping: float = 0.3
    """Share of prompts replaced by the empty one, 0 to 1."""
    min_snr_gamma: float = 5.0
    """Weight of a timestep is min(SNR, gamma) / SNR."""
    seed: int = 3

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.compositions) < 1:
            counts = f"{self.steps}, {self.batch} and {self.compositions}"
            raise ValueError(f"steps, batch and compositions must be at least 1, got {counts}.")
        if not 0 <= self.prompt_dropping <= 1:
            raise ValueError(f"prompt_dropping is a share from 0 to 1, got {self.prompt_dropping}.")
        if self.output.suffix != ".safetensors":
            raise ValueError(f"output must end in .safetensors, got {self.output.name!r}.")
