"""How strongly a control acts: a record of its residuals for the effect map, and the calibration of its strength.

Shapes: C channels, H W latent, L tokens, D width. One evaluation has R rows.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..cn_core.modulation.stacking import rms
from .sources.source import Call, Control

logger = logging.getLogger(__name__)

CALIBRATED_SHARE = 0.5
"""What share of the model's own features residuals have at strength 1 after calibration (RMS over RMS).

Between the shares of the embedded base's two ControlNets: 0.83 for edges, 0.34 for silhouettes (benchmarks/RESULTS.md).
"""
PATCHES = {"input": "input_block_patch", "output": "output_block_patch"}
"""The host's UNet calls these after it has added a residual of that list."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One residual of one evaluation."""

    sigma: float
    layer: str
    """Such as "output 3"."""
    strength: float
    """RMS over everything."""
    map: Tensor | None
    """H W: RMS over rows and channels; None where there is no grid."""


@dataclass(kw_only=True)
class EffectRecord:
    """All residuals of a run, as small maps in main memory."""

    name: str
    effects: list[Effect] = field(default_factory=list)

    def add(self, control: Control, sigma: float, latent: tuple[int, int]) -> None:
        """Note the residuals of an evaluation at a latent of this size."""
        for key, entries in control.items():
            for index, residual in enumerate(entries):
                if residual is not None:
                    effect = Effect(
                        sigma=sigma, layer=f"{key} {index}", strength=rms(residual), map=rms_map(residual, latent)
                    )
                    self.effects.append(effect)


def rms_map(residual: Tensor, latent: tuple[int, int]) -> Tensor | None:
    """R C H W or R L D -> H W; None for tokens that are not on the latent's grid."""
    if residual.ndim == 4:
        return residual.float().square().mean(dim=(0, 1)).sqrt().cpu()
    height, width = (math.ceil(side / 2) for side in latent)  # transformers take 2x2 patches
    if residual.ndim != 3 or residual.shape[1] != height * width:
        return None
    return residual.float().square().mean(dim=(0, 2)).sqrt().view(height, width).cpu()


@dataclass(kw_only=True)
class Calibration:
    """Measures a control's share of the model's features in one evaluation, and scales it from the next one on."""

    name: str
    share: float | None = None

    def scale(self, own: Control) -> Control:
        """The residuals as they should be, once the share is known."""
        if not self.share:
            return own
        factor = CALIBRATED_SHARE / self.share
        return {key: [None if r is None else r * factor for r in entries] for key, entries in own.items()}

    def measure(self, own: Control, joined: Control, call: Call) -> None:
        """Let this evaluation of a UNet report its features next to the residuals, if that has not been done."""
        if self.share is not None:
            return
        ratios: list[float] = []
        patches = dict(call.options.get("patches", {}))
        for key, name in PATCHES.items():
            pairs = list(zip(own.get(key, []), joined.get(key, []), strict=False))[
                ::-1
            ]  # the UNet takes the last first
            if any(residual is not None for residual, _ in pairs):
                patches[name] = [*patches.get(name, []), Meter(pairs=pairs, ratios=ratios, calibration=self)]
        call.options["patches"] = patches

    def settle(self, ratios: list[float]) -> None:
        """Take the mean of what was measured and say it."""
        self.share = sum(ratios) / len(ratios)
        if self.share:
            logger.info(
                "%s: residuals have %.3f of the features' size; multiplied by %.2f from the next step on.",
                *(self.name, self.share, CALIBRATED_SHARE / self.share),
            )


@dataclass(kw_only=True)
class Meter:
    """A patch of the host's UNet that compares features with the residual just added to them."""

    pairs: list[tuple[Tensor | None, Tensor | None]]
    """(this control's residual, that of the whole chain) for each block, in the UNet's order."""
    ratios: list[float]
    calibration: Calibration
    block: int = 0

    def __call__(self, h: Tensor, *others: Any) -> Any:
        """The host's two forms: (features, options) for inputs, (features, skip, options) for outputs."""
        features = others[0] if len(others) == 2 else h
        if self.block < len(self.pairs):
            residual, added = self.pairs[self.block]
            if residual is not None and added is not None and residual.shape == features.shape:
                size = rms(features - added)
                self.ratios.append(rms(residual) / size if size else 0.0)
            self.block += 1
            if self.block == len(self.pairs):
                self.calibration.settle(self.ratios)
        return h if len(others) == 1 else (h, others[0])
