"""The modulation chain: what happens to a network's residuals before the model adds them.

Shapes: B latents, C channels, H W latent, L tokens, D width. One evaluation has R = chunks * B rows, chunk after chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cn_core.modulation.frames import frame_indices, values
from ..cn_core.modulation.masks import extent, fit
from ..cn_core.modulation.settings import Modulation
from ..cn_core.modulation.stacking import join
from ..cn_core.modulation.weights import LayerWeights, layer_weights
from .areas import frame_window, regions
from .sources.source import Call, Control, Gain, Layout, mapped

KEYS = ("input", "middle", "output")
SIDE = "controlnet_kit_side"
"""Under which a prompt's side travels through the host: 1 for positive, -1 for negative."""


def sides(cond: Mapping[str, Any], options: Mapping[str, Any], chunks: int) -> tuple[bool, ...]:
    """Is each chunk for a positive prompt? From the mark that ApplyControlNet left, else from the host's order.

    The host's order alone is not enough: guiders with three prompts, or one, number them in other ways.
    """
    mark = cond.get(SIDE)
    if mark is not None:
        return tuple(bool(part[0] > 0) for part in mark.chunk(chunks))
    return tuple(index == 0 for index in options.get("cond_or_uncond", range(chunks)))


@dataclass(frozen=True, kw_only=True)
class Gains:
    """The factors of one evaluation."""

    strength: float
    """For all residuals; includes the schedule."""
    rows: Tensor | None
    """R, or None: 1 for all."""
    mask: Tensor | None
    """R or 1 rows, 1 h w; None: everywhere."""
    chunks: tuple[int, ...]
    """Those that need the network at all."""

    @property
    def is_neutral(self) -> bool:
        """Whether all factors are 1."""
        return self.strength == 1.0 and self.rows is None and self.mask is None


def gains(modulation: Modulation, strength: float, call: Call, positive: Sequence[bool]) -> Gains:
    """The factors for the rows of an evaluation whose chunks are for positive prompts, or not."""
    by_chunk = [modulation.positive if side else modulation.negative for side in positive]
    by_frame = frame_values(modulation, call)
    rows = [chunk * frame for chunk in by_chunk for frame in by_frame]
    plain = all(factor == 1.0 for factor in rows)
    acts = strength != 0 and any(by_frame) and (modulation.mask is None or extent(modulation.mask) != "nowhere")
    return Gains(
        strength=strength,
        rows=None if plain else torch.tensor(rows, device=call.x.device),
        mask=mask_rows(modulation.mask, call),
        chunks=tuple(index for index, factor in enumerate(by_chunk) if factor) if acts else (),
    )


def frame_values(modulation: Modulation, call: Call) -> tuple[float, ...]:
    """One factor for each latent of the batch."""
    if modulation.frame_strengths is None:
        return (1.0,) * call.batch
    window = frame_window(call.options, call.batch)
    if window is None:
        return values(modulation.frame_strengths, call.batch)
    strengths = values(modulation.frame_strengths, window.total)
    return tuple(strengths[index] for index in window.frames)


def mask_rows(mask: Tensor | None, call: Call) -> Tensor | None:
    """The effect mask (F 1 h w, over the whole picture) for the rows of an evaluation: R or 1 rows."""
    if mask is None or extent(mask) == "everywhere":
        return None
    mask = mask.to(call.x.device)
    window = frame_window(call.options, call.batch)
    if mask.shape[0] > 1:
        mask = mask[list(frame_indices(mask.shape[0], call.batch, "repeat_last", window and window.frames))]
    parts = regions(call.options, (call.x.shape[-2], call.x.shape[-1]))
    if parts is None:
        return mask if mask.shape[0] == 1 else mask.repeat(call.chunks, 1, 1, 1)
    latent = [part.cut(over(mask, part.whole)) if part else over(mask, call.x.shape[-2:]) for part in parts]
    return torch.cat([rows.expand(call.batch, -1, -1, -1) for rows in latent])


def over(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask F 1 h w in the pixels of a whole latent of H W."""
    return F.interpolate(mask, size=(8 * size[0], 8 * size[1]), mode="bilinear")


def modulated(
    control: Control, modulation: Modulation, layout: Layout, gain: Gains, latent: tuple[int, int]
) -> Control:
    """Every residual times strength, weight of its layer, factors of its rows and mask.

    A residual may stand in several places (transformers repeat them), and have another weight in each.
    """
    if gain.is_neutral and modulation.weights == LayerWeights():
        return control
    present = {key: [residual is not None for residual in entries] for key, entries in control.items()}
    weights = layer_weights(present, layout, modulation.weights)
    done: dict[tuple[int, float], Tensor] = {}

    def apply(residual: Tensor | None, weight: float) -> Tensor | None:
        if residual is None:
            return None
        place = (id(residual), weight)
        if place not in done:
            done[place] = scaled(residual, weight, gain, latent)
        return done[place]

    return {
        key: [apply(residual, weight) for residual, weight in zip(entries, weights[key], strict=True)]
        for key, entries in control.items()
    }


def scaled(residual: Tensor, weight: float, gain: Gains, latent: tuple[int, int]) -> Tensor:
    """One residual times all its factors."""
    factor = gain.strength * weight
    residual = residual if factor == 1.0 else residual * factor
    if gain.rows is not None:
        residual = residual * by_row(gain.rows, residual)
    return residual if gain.mask is None else residual * fit(gain.mask, residual, latent)


def pooled(control: Control) -> Control:
    """Each spatial residual replaced by its mean over H and W ("shuffle" networks: style without layout)."""

    def mean(residual: Tensor) -> Tensor:
        return residual.mean(dim=(2, 3), keepdim=True).repeat(1, 1, residual.shape[2], residual.shape[3])

    return mapped(control, mean)


def spread(control: Control, chunks: Sequence[int], call: Call) -> Control:
    """Residuals for some chunks of an evaluation -> for all of them, with zeros for the others."""
    if len(chunks) == call.chunks:
        return control

    def widen(residual: Tensor) -> Tensor:
        whole = residual.new_zeros(call.chunks, call.batch, *residual.shape[1:])
        # T2I-Adapters give one row for all
        whole[list(chunks)] = residual if len(residual) == 1 else residual.unflatten(0, (len(chunks), -1))
        return whole.flatten(0, 1)

    return mapped(control, widen)


def combined(
    previous: Control | None, own: Control, modulation: Modulation, gain: Gains, latent: tuple[int, int]
) -> Control:
    """What the model adds: this control's residuals joined to those of the chain before it.

    Where masks give priority, they must not have been applied to `own`.
    """
    if previous is None:
        return {key: list(own.get(key, [])) for key in KEYS}

    def both(before: Tensor | None, residual: Tensor | None) -> Tensor | None:
        if before is None or residual is None:
            return residual if before is None else before
        where = None
        if modulation.stacking == "mask":
            where = by_row(gain.rows != 0, residual) if gain.rows is not None else residual.new_ones(())
            where = where if gain.mask is None else where * fit(gain.mask, residual, latent)
        return join(before, residual, modulation.stacking, where)

    return {key: [both(a, b) for a, b in zip_longest(previous.get(key, []), own.get(key, []))] for key in KEYS}


def by_row(factors: Tensor, residual: Tensor) -> Tensor:
    """R factors, shaped to multiply a residual of R rows."""
    return factors.to(residual.dtype).view(-1, *[1] * (residual.ndim - 1))


def in_forward(gain: Gains, call: Call) -> Gain:
    """The same factors for a network that acts inside the model's forward."""
    rows = torch.ones(call.x.shape[0], device=call.x.device) if gain.rows is None else gain.rows
    mask = gain.mask
    if mask is not None:
        mask = F.interpolate(mask, size=call.x.shape[-2:], mode="bilinear", antialias=True)
    return Gain(rows=gain.strength * rows, mask=mask)
