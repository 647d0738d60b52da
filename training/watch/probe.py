"""The paired loss gap: how much worse the loss is with another picture's hint, and without control.

Measured on pairs, noise and timesteps that are the same in all measurements, so that what hides learning in the
training loss, which timestep and picture came up, cancels out. Shapes: B pairs, C h w latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import objective
from ..events import Converged, Event, Probed, StepDone
from ..order import generator
from ..samples import Batch
from .convergence import FOLLOWED, Gap, converged_at, message, progress
from .sampling import Pictures, decoded, kept, one_step, plain_batch, predict, rows_of_one_size
from .validate import Validation

if TYPE_CHECKING:
    from ..loop import Trainer

PAIRS = 32
PREVIEWS = 4
PREVIEW_LEVEL = 0.7
"""How noisy the latents of the preview are, as a share of all timesteps."""
AGAIN = 1.2
"""After pictures that did not confirm it, the next ones are drawn this many times as many steps later."""


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What is the same in every measurement of a run."""

    batch: Batch
    noisy: Tensor
    """x_t, B C h w."""
    timesteps: Tensor
    """B: evenly spread."""
    wanted: Tensor
    """eps or v, B C h w."""
    without: Tensor
    """Losses without control, B."""


def fixed(run: Trainer) -> Fixed:
    """Held-out pairs, or the first of the training's if fewer than two are held out; some more than once if few."""
    samples, schedule = run.samples.held_out if len(run.samples.held_out) > 1 else run.samples, run.schedule
    rows = rows_of_one_size(samples, PAIRS)
    batch = plain_batch(samples, rows.repeat(-(-PAIRS // len(rows)))[:PAIRS])
    timesteps = ((torch.arange(PAIRS) + 0.5) / PAIRS * schedule.steps).long()
    noise = torch.randn(batch.latents.shape, generator=generator(run.config.validation.seed, "probe"))
    noisy = schedule.add_noise(batch.latents, noise, timesteps)
    wanted = objective.target(run.base.prediction, schedule, batch.latents, noise, timesteps)
    without = objective.losses(predict(run, None, batch, noisy, timesteps).cpu(), wanted)
    return Fixed(batch=batch, noisy=noisy, timesteps=timesteps, wanted=wanted, without=without)


class Probe:
    """Measures the gap every so many steps and after the last one, and says when hints began to be followed.

    Announced is what the finished file would do: the average of the weights, if one is kept, has to have followed.
    """

    name = "probe"

    def __init__(self, validation: Validation | None = None) -> None:
        self.validation = validation
        """Draws the pictures that confirm it."""
        self.fixed: Fixed | None = None
        self.gaps: list[Gap] = []
        self.announced = False
        self.asked = 0
        """The step of the last pictures that did not."""

    def watch(self, run: Trainer, step: StepDone) -> Iterable[Event]:
        """Probed when it is due, and Converged once."""
        every = run.config.validation.probe_every
        if not every or (step.number % every and step.number < run.config.run.steps):
            return
        if self.fixed is None:
            self.fixed = fixed(run)
        values, shown = gaps(run, run.module, self.fixed), preview(run, self.fixed)
        probed = Probed(number=step.number, values=values, preview=shown)
        self.gaps.append(Gap.of(probed))
        yield probed
        if not self.announced and step.number >= AGAIN * self.asked:
            yield from self.conclude(run, self.fixed)

    def conclude(self, run: Trainer, same: Fixed) -> Iterable[Event]:
        """Converged, if gap and pictures say so; Validated with these pictures."""
        found, last, module = converged_at(self.gaps), self.gaps[-1], kept(run)
        if found is None:
            return
        if (
            module is not run.module
            and Gap.of(Probed(number=0, values=gaps(run, module, same))).relative < last.relative / 2
        ):
            return
        measure, scores = "", dict[str, float]()
        if self.validation is not None:
            before, shown = self.validation.last, self.validation.now(run, last.number)
            if shown is not before:
                yield shown
            measure, scores = shown.measure, dict(shown.scores)
        share = progress(measure, scores)
        if share is not None and share < FOLLOWED:
            self.asked = last.number
            return
        self.announced = True
        yield Converged(number=last.number, since=found, message=message(found, last, measure, scores))

    def state(self) -> Mapping[str, Any]:
        """What was measured."""
        return {"gaps": [vars(gap) for gap in self.gaps], "announced": self.announced, "asked": self.asked}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The way back."""
        self.gaps = [Gap(**gap) for gap in state.get("gaps", [])]
        self.announced, self.asked = state.get("announced", False), state.get("asked", 0)


def gaps(run: Trainer, module: nn.Module, same: Fixed) -> dict[str, float]:
    """As `Probed.values` has them; with a single pair there is no other hint."""
    right = losses(run, module, same, same.batch)
    values = {"right": float(right.mean()), "no_control": float((same.without - right).mean())}
    if bool((same.batch.rows == same.batch.rows[0]).all()):
        return values
    other = losses(run, module, same, other_hints(same.batch)) - right
    error = float(other.std()) / len(other) ** 0.5
    return {**values, "other_hint": float(other.mean()), "error": error}


def other_hints(batch: Batch) -> Batch:
    """Each pair with its neighbour's hint."""
    latent = None if batch.latent_hint is None else batch.latent_hint.roll(1, 0)
    return replace(batch, hint=batch.hint.roll(1, 0), latent_hint=latent)


def losses(run: Trainer, module: nn.Module, same: Fixed, batch: Batch) -> Tensor:
    """Of each pair, B."""
    return objective.losses(predict(run, module, batch, same.noisy, same.timesteps).cpu(), same.wanted)


def preview(run: Trainer, same: Fixed) -> Pictures:
    """One step's pictures of the first pairs."""
    batch = same.batch.part(0, PREVIEWS)
    timesteps = torch.full((len(batch.rows),), int(PREVIEW_LEVEL * run.schedule.steps))
    noise = torch.randn(batch.latents.shape, generator=generator(run.config.validation.seed, "preview"))
    noisy = run.schedule.add_noise(batch.latents, noise, timesteps)
    predicted = predict(run, kept(run), batch, noisy, timesteps)
    return decoded(run.base.codec, one_step(run, predicted, noisy, timesteps))
