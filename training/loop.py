"""The training loop: a generator that yields what happens. It prints nothing and knows no data set, family or host.

Each step is a pure function of the weights before it, the seed and its number, see `draws`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from . import hardware
from .bases.base import Base
from .compute import Computation, Share, check, micro_batch, seeded, tell_deepspeed
from .config import TrainConfig
from .draws import Draw, draw
from .errors import TrainingError
from .events import Alarm, Converged, Event, Finished, MicroBatchHalved, Resumed, Saved, StepDone, Validated
from .feed import Draws, Feed
from .lanes import Lanes
from .optim import Average, Optimizers, rate
from .order import Order
from .output import export, postmortem
from .output.history import History
from .output.keeper import Keeper
from .readings import LOST, Readings, first_lost, lost_weights
from .rehearsal import Rehearsal, shortage
from .samples import Samples
from .targets.target import Target
from .timesteps import Timesteps
from .watch.watcher import Watcher


class Trainer:
    """The parts of a run. It owns base and target: it puts them on the device, in place.

    `draws` may replace the seeded draws. Nothing is written before `run`.
    """

    def __init__(
        self,
        base: Base,
        samples: Samples,
        target: Target,
        config: TrainConfig,
        accelerator: Accelerator,
        *,
        watchers: Sequence[Watcher] = (),
        draws: Draws | None = None,
    ) -> None:
        config = hardware.decided(config, accelerator.device)
        self.base, self.samples, self.target, self.config, self.accelerator = base, samples, target, config, accelerator
        self.watchers = tuple(watchers)
        self.output = Path(config.run.output)
        self.done = 0
        """Steps."""
        self.between = True
        """Steps: the weights are those after `done` of them, and not on their way to the next."""
        self.stopping = False
        self.scores: Mapping[str, float] = {}
        """Of the last validation with pairs that are not trained on."""
        self.share = Share.of(config.run.batch, accelerator)
        self.micro = micro_batch(config, self.share)
        check(config, accelerator)
        self.schedule = replace(base.schedule, device=accelerator.device)
        self.timesteps = Timesteps(config.objective.timesteps, self.schedule.steps)
        self.drawn = self.timesteps
        """The distribution before the present step, which learns in it."""
        self.order = Order(samples.sizes, config.run.batch, config.run.seed)
        self.average = Average(config.optimizer.ema) if config.optimizer.ema else None
        self.prepare()
        self.feed = Feed(samples, draws or self.draw, pinned=accelerator.device.type == "cuda")
        self.keeper = Keeper(self)
        self.history = History(self.output)
        self.readings = Readings(accelerator)
        self.rehearsal = Rehearsal(Order(samples.sizes, config.run.batch, config.run.seed))
        export.metadata(self, export.place(self.output))  # what it cannot say is better known now than at the end

    def prepare(self) -> None:
        """Put base and target on the device, and make the optimiser."""
        config, device, target = self.config, self.accelerator.device, self.target
        if config.optimizer.weights == "bf16":
            target.module.to(torch.bfloat16)
        shared = hardware.storages(target.module.parameters()) & hardware.storages(self.base.unet.parameters())
        if shared:
            raise TrainingError(
                f"The frozen base shares {len(shared)} tensors with what is trained, so training would edit it. "
                "Report this: it is a fault of the trainer or of a target."
            )
        hardware.prepare_base(self.base.unet, config.hardware, device)
        hardware.prepare_module(target.module, config.hardware)
        target.begin(0)
        self.optimizers = Optimizers(target.parameter_groups(), config.optimizer)
        tell_deepspeed(config, self.share, self.accelerator)
        if config.optimizer.in_backward:
            self.module: nn.Module = self.accelerator.prepare(target.module)
        else:
            self.module, *self.optimizers.all = self.accelerator.prepare(target.module, *self.optimizers.all)
        self.scaler = torch.amp.GradScaler("cuda", enabled=config.hardware.precision == "fp16")
        self.lanes = Lanes.of(config, self.accelerator)
        self.computation = Computation(
            base=self.base,
            target=target,
            config=config,
            accelerator=self.accelerator,
            module=self.module,
            timesteps=self.timesteps,
            schedule=self.schedule,
            scale=self.scaler.scale,
            lanes=self.lanes,
        )

    def draw(self, step: int) -> Draw:
        """Everything random of step `step` (from 0)."""
        rows = self.order.rows(step)
        return draw(self.config.run.seed, step, rows, self.samples.latent_shape(int(rows[0])), self.config.objective)

    def weights(self) -> Mapping[str, Tensor]:
        """What is worth keeping, named as in the target's module: the average of the weights, if one is made."""
        if self.average is not None and self.average.tensors:
            return self.average.tensors
        return self.keeper.state_dict()

    def stop(self) -> None:
        """Finish after the present step, and save. May be called from a signal handler or another thread."""
        self.stopping = True

    def run(self) -> Generator[Event]:
        """Train, from the newest checkpoint on if there is one; the file is written at the end."""
        try:
            for event in self.events():
                if self.accelerator.is_main_process:
                    self.history.add(event)
                yield event
        except (Exception, GeneratorExit) as error:  # the second is what an error of the one who is told looks like
            self.keeper.rescue(error)
            raise
        finally:
            self.feed.close()
            self.keeper.close()
            if self.lanes is not None:
                self.lanes.close()

    def events(self) -> Iterator[Event]:
        """As they happen."""
        began = time.monotonic()
        yield from self.resume()
        fingerprint = hardware.fingerprint(self.base.unet)
        # Asked after each step, since a launcher that was interrupted kills its processes half a minute later.
        while self.done < self.config.run.steps and not self.any_process(self.stopping):
            yield from self.advance()
        if self.keeper.saved != self.done:
            yield self.save()
        if hardware.fingerprint(self.base.unet) != fingerprint:
            raise TrainingError(
                "The frozen base changed during training, so the ControlNet would not fit it: no file was written. "
                "Something else in this process has trained or patched it."
            )
        path = export.write(self, export.place(self.output))
        stopped = self.done < self.config.run.steps
        yield Finished(number=self.done, stopped=stopped, path=path, seconds=time.monotonic() - began)

    def resume(self) -> Iterator[Event]:
        """Claim the folder and go on from its newest whole checkpoint."""
        found = self.keeper.open()
        again = self.keeper.unwatched
        if self.accelerator.is_main_process:
            self.history.cut(self.done if again is None else self.done - 1)
        if found is not None:
            yield Resumed(number=self.done, path=found)
        for path in self.keeper.aside:
            message = f"{path.stem} is not as it was written; it was put aside as {path}."
            yield Alarm(number=self.done, kind="damaged checkpoint", message=message)
        if again is not None:
            self.target.begin(self.done - 1)
            yield from self.look(again)

    def any_process(self, here: bool) -> bool:
        """Whether something is so in any of them, which have to ask at the same time."""
        if self.accelerator.num_processes == 1:
            return here
        found = torch.tensor(float(here), device=self.accelerator.device)
        return float(self.accelerator.reduce(found, reduction="sum")) > 0  # pyright: ignore[reportArgumentType]

    def advance(self) -> Iterator[Event]:
        """One step and what follows from it."""
        began, step = time.monotonic(), self.done
        self.target.begin(step)
        learning_rate = self.optimizers.set_rate(rate(self.config.optimizer, step, self.config.run.steps))
        self.between = not self.config.optimizer.in_backward
        while not self.attempt():
            yield MicroBatchHalved(number=step, micro_batch=self.micro)
        self.between = False
        self.move()
        self.done += 1
        self.between = True
        due = self.done % self.config.run.save_every == 0
        loss = norm = None
        if due or self.done % self.config.run.log_every == 0 or self.done == self.config.run.steps:
            loss, norm = self.read()
        seconds = time.monotonic() - began
        done = StepDone(number=self.done, loss=loss, learning_rate=learning_rate, seconds=seconds, gradient_norm=norm)
        yield from self.look(done)
        if due:
            yield self.save()

    def attempt(self) -> bool:
        """The gradient of the step; False, and smaller micro-batches, when a device's memory was too small."""
        reason = self.rehearsal.shortage(self)
        together = reason is not None or self.accelerator.num_processes == 1
        if reason is None:
            reason = shortage(self, self.compute)
        if reason is None:
            return True
        self.optimizers.zero_grad()
        if self.config.optimizer.in_backward or not together or self.micro == 1:
            raise TrainingError(
                f"The device's memory is too small in step {self.done + 1} with micro-batches of {self.micro}: "
                f"{reason:.200} Lower hardware.micro_batch, or set hardware.checkpointing to both."
            )
        self.micro = (self.micro + 1) // 2
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        return False

    def compute(self) -> None:
        """The gradient, and the loss that it is of."""
        self.drawn = copy(self.timesteps)
        self.loss = self.computation.gradients(self.feed, self.done, self.share, self.micro)

    def move(self) -> None:
        """Let the optimiser move the weights by the gradient that `attempt` left."""
        try:
            with torch.inference_mode(False), self.rounding():
                norm = None if self.config.optimizer.in_backward else self.moved()
                self.optimizers.zero_grad()
                if self.average is not None:
                    self.average.update(self.target.module.state_dict(), self.done)
        except torch.OutOfMemoryError as error:
            self.optimizers.zero_grad()
            raise TrainingError(
                f"The device's memory is too small for what the optimiser keeps (in step {self.done + 1}): "
                f"{error!s:.200} Set optimizer.name to adamw8bit, optimizer.ema to 0, or hardware.fit to true, "
                "which finds what fits."
            ) from error
        self.readings.add(self.loss, norm, self.target.module, self.drawn)

    def moved(self) -> Tensor | None:
        """By the one optimiser; the gradient's norm, if it is limited."""
        norm, (optimizer,) = None, self.optimizers.all
        self.scaler.unscale_(optimizer)
        if self.config.optimizer.clip:
            norm = self.accelerator.clip_grad_norm_(self.module.parameters(), self.config.optimizer.clip)
        self.scaler.step(optimizer)
        self.scaler.update()
        return norm

    def rounding(self) -> AbstractContextManager[None]:
        """Stochastic rounding draws from torch's own generator: seeded for this step, and given back afterwards."""
        if self.config.optimizer.weights == "fp32":
            return nullcontext()
        return seeded(self.accelerator.device, self.config.run.seed, "rounding", self.done)

    def read(self) -> tuple[float, float | None]:
        """The mean loss since the last reading, and the last gradient's norm; DivergedError when one is no number."""
        steps = self.readings.read()
        lost = first_lost(steps, overflow=self.scaler.is_enabled())
        if lost is not None:
            raise postmortem.lost(self, self.done - len(steps) + lost[0], lost[1], steps[lost[0]].timesteps)
        return sum(one.loss for one in steps) / len(steps), steps[-1].norm

    def look(self, step: StepDone) -> Iterator[Event]:
        """A step, and what the watchers say; from a checkpoint that is saved meanwhile on, they are asked again."""
        self.keeper.remember(step)
        yield step
        yield from self.watched(step)
        self.keeper.unwatched = None

    def watched(self, step: StepDone) -> Iterator[Event]:
        """What the watchers say."""
        for watcher in self.watchers:
            for event in watcher.watch(self, step):
                if isinstance(event, Validated) and event.held_out:
                    self.scores = event.scores
                yield event
                if isinstance(event, Converged):
                    name = f"{self.output.name}-converged-{self.done}.safetensors"
                    yield Saved(number=self.done, path=export.write(self, self.output / name))

    def save(self) -> Saved:
        """Write a checkpoint now; DivergedError instead of one that cannot be gone on from."""
        if self.readings.losses:
            self.read()
        lost = self.accelerator.reduce(lost_weights(self.target.module), reduction="sum")
        if int(lost):  # pyright: ignore[reportArgumentType]
            raise postmortem.lost(self, self.done - 1, LOST, self.drawn)
        return Saved(number=self.done, path=self.keeper.save())
