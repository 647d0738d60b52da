"""`controlnet-kit train`: a recipe to a ControlNet."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from .. import compute, export, flags
from ..bases.open import open_base
from ..cache import open_samples
from ..config import TrainConfig
from ..errors import TrainingError
from ..events import Finished
from ..keeper import find
from ..loop import Trainer
from ..targets.make import make_target


def main(arguments: Sequence[str]) -> int:
    """Returns 0 when all steps are done, 130 when someone stopped the run, 1 when it had to stop."""
    wanted = flags.read(arguments)
    config = TrainConfig.from_toml(wanted.recipe, wanted.overrides)
    find(config)
    if config.hardware.threads:
        torch.set_num_threads(config.hardware.threads)
    if wanted.dry_run:
        print(config.to_toml())
        return 0
    try:
        with until_signal(prepare(config)) as trainer:
            finished = follow(trainer)
    except TrainingError as error:
        print(f"controlnet-kit train: {error}", file=sys.stderr)
        return 1
    if wanted.diffusers and trainer.accelerator.is_main_process:
        print(f"Wrote {export.to_diffusers(finished.path)}")
    return 130 if finished.stopped else 0


def accelerator_for(config: TrainConfig) -> Accelerator:
    """One process, or what `accelerate launch` set up; the loop has its own precision and accumulation."""
    unused = config.target.links != "all" or config.target.unlock_decoder_at > 0
    handler = DistributedDataParallelKwargs(find_unused_parameters=unused)
    return Accelerator(mixed_precision="no", kwargs_handlers=[handler])


def prepare(config: TrainConfig) -> Trainer:
    """Everything before the first step."""
    accelerator = accelerator_for(config)
    compute.check(config, accelerator)
    base = open_base(config.base)
    target = make_target(base, config)
    samples = open_samples(config.data, base, seed=config.run.seed)
    return Trainer(base, samples, target, config, accelerator)


def follow(trainer: Trainer) -> Finished:
    """Run, and tell."""
    for event in trainer.run():
        if trainer.accelerator.is_main_process and getattr(event, "loss", 0) is not None:
            print(event)
        if isinstance(event, Finished):
            return event
    raise TrainingError("The run ended without an end.")


@contextmanager
def until_signal(trainer: Trainer) -> Generator[Trainer]:
    """Ctrl-C or a terminating signal lets the present step end and saves; a second one ends the process at once."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        trainer.stop()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield trainer
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
