"""Validation: pictures from held-out hints and fixed noise, and how well they follow those hints.

The floor is what the base draws from the same noise without control; the ceiling is the real pictures, as good as the
autoencoder shows them. Shapes: B pairs, C h w latent, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..events import Alarm, Event, StepDone, Validated
from ..order import generator
from ..samples import Batch
from .ruler import Ruler, ruler
from .sampling import Pictures, decoded, draw, kept, plain_batch, rows_of_one_size, to_pixels

if TYPE_CHECKING:
    from ..loop import Trainer


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What is the same in every validation of a run."""

    batch: Batch
    empty: Batch
    """Without prompts."""
    noise: Tensor
    """B C h w."""
    hints: Pictures
    real: Pictures
    without: Pictures
    """Drawn without control."""
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    """Of the hints."""
    held_out: bool
    ruler: Ruler
    bounds: Mapping[str, float]
    """Floor and ceiling."""


def fixed(run: Trainer) -> Fixed:
    """Drawn and measured once."""
    settings = run.config.validation
    samples = run.samples.held_out if len(run.samples.held_out) else run.samples
    rows = rows_of_one_size(samples, settings.count)
    batch, empty = plain_batch(samples, rows), plain_batch(samples, rows, dropped=True)
    source = generator(settings.seed, "validation")
    noise = torch.randn(batch.latents.shape, generator=source)
    here = batch.to(run.accelerator.device)
    hints, real = to_pixels(here.hint), decoded(run.base.codec, here.latents)
    without = draw(run, None, batch, empty, noise)
    measure, keys = ruler(run.config.data, run.config.run.seed), tuple(map(samples.key, rows.tolist()))
    floor, ceiling = (measure(pictures, hints, real, keys).value for pictures in (without, real))
    return Fixed(
        batch=batch,
        empty=empty,
        noise=noise,
        hints=hints,
        real=real,
        without=without,
        captions=tuple(map(samples.caption, rows.tolist())),
        keys=keys,
        held_out=samples is not run.samples,
        ruler=measure,
        bounds={"floor": floor, "ceiling": ceiling},
    )


class Validation:
    """Draws pictures every so many steps and after the last one."""

    name = "validation"

    def __init__(self) -> None:
        self.fixed: Fixed | None = None
        self.last: Validated | None = None

    def watch(self, run: Trainer, step: StepDone) -> Iterable[Event]:
        """Validated, when it is due."""
        every = run.config.validation.every
        if not every or (step.number % every and step.number < run.config.run.steps):
            return
        first = self.fixed is None
        shown = self.now(run, step.number)
        if first and self.fixed and self.fixed.ruler.reason:
            message = f"Fidelity is likeness to the real pictures only: {self.fixed.ruler.reason}"
            yield Alarm(number=step.number, kind="no preprocessor", message=message)
        yield shown

    def now(self, run: Trainer, number: int) -> Validated:
        """Draw and measure after `number` steps."""
        if self.last is None or self.last.number != number:
            self.fixed = self.fixed or fixed(run)
            self.last = validated(run, self.fixed, number)
        return self.last

    def state(self) -> Mapping[str, Any]:
        """Nothing: all of it can be made again."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


def validated(run: Trainer, same: Fixed, number: int) -> Validated:
    """Draw and measure now."""
    images = draw(run, kept(run), same.batch, same.empty, same.noise)
    found = same.ruler(images, same.hints, same.real, same.keys)
    return Validated(
        number=number,
        scores={found.name: found.value, **same.bounds, **found.details},
        images=images,
        hints=same.hints,
        captions=same.captions,
        without=same.without,
        real=same.real,
        measure=found.name,
        held_out=same.held_out,
    )
