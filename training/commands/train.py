"""`controlnet-kit train`: a recipe to a ControlNet."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from tqdm import tqdm

from .. import compute, flags, hardware, trackers
from ..bases.base import Base
from ..bases.open import open_base
from ..config import DataConfig, TrainConfig
from ..data import latent_hints
from ..data.formats.open import open_pairs
from ..data.lint.run import lint, options_of
from ..data.origin import recorded
from ..data.pairs import Pairs
from ..errors import DataError, TrainingError
from ..events import Finished
from ..loop import Trainer
from ..observers import observed
from ..output import export, output
from ..output.keeper import admit, as_begun, checkpoint_bytes, find
from ..planned import plan_samples
from ..planner import plan, plan_text
from ..planner.cost import costs
from ..targets.make import make_target
from ..watch.watchers import watchers


def main(arguments: Sequence[str]) -> int:
    """Returns 0 when all steps are done, 130 when someone stopped the run, 1 when it had to stop."""
    wanted = flags.read(arguments)
    config = settings(wanted)
    output.describe(Path(config.run.output))
    hardware.keep_freed_memory()
    if config.hardware.threads:
        torch.set_num_threads(config.hardware.threads)
    accelerator = accelerator_for(config)
    config = as_begun(hardware.decided(config, accelerator.device))
    resumes = find(config) is not None
    compute.check(config, accelerator)
    base = open_base(config.base)
    card = plan.card(config, accelerator.device, accelerator.num_processes)
    if wanted.dry_run:
        planned = plan.plan(config, costs(config, base), card)
        print(f"{planned.config.to_toml()}\n{plan_text.text(planned, base.family)}")
        return 0
    if chosen := plan.decided(config, base, card):
        config = chosen.config
        if not chosen.fits and accelerator.is_main_process:
            print(f"controlnet-kit train: {plan_text.refusal(chosen)}", file=sys.stderr)
    compute.check(config, accelerator)
    try:
        with until_signal(prepare(config, base, accelerator, check=wanted.lint and not resumes)) as trainer:
            finished = follow(trainer)
    except TrainingError as error:
        print(f"controlnet-kit train: {error}", file=sys.stderr)
        return 1
    if wanted.diffusers and accelerator.is_main_process:
        print(f"Wrote {export.to_diffusers(finished.path)}")
    return 130 if finished.stopped else 0


def settings(wanted: flags.Wanted) -> TrainConfig:
    """Of the recipe, the command line and the note of `annotate`. Raises ConfigError, DataError."""
    config = TrainConfig.from_toml(wanted.recipe, wanted.overrides)
    if wanted.diffusers:
        export.check_diffusers(config.target)
    return replace(config, data=recorded(config.data))


def accelerator_for(config: TrainConfig) -> Accelerator:
    """One process, or what `accelerate launch` set up; the loop has its own precision and accumulation."""
    unused = config.target.links != "all" or config.target.unlock_decoder_at > 0
    handler = DistributedDataParallelKwargs(find_unused_parameters=unused)
    logged = trackers.wanted(config) or None
    return Accelerator(mixed_precision="no", kwargs_handlers=[handler], log_with=logged, project_dir=config.run.output)


def prepare(config: TrainConfig, base: Base, accelerator: Accelerator, *, check: bool) -> Trainer:
    """Everything before the first step; DataError, with what was found, for pairs that cannot be right."""
    main = accelerator.is_main_process
    if main:
        output.check_free(Path(config.run.output))
    target, pairs = make_target(base, config), open_pairs(config.data)
    if main and find(config) is None:
        output.require_space(Path(config.run.output), checkpoint_bytes(target, config), "a checkpoint")
    if check and main:
        check_pairs(pairs, config.data, base)
    with Bars(shown=main) as bars:
        planned = plan_samples(
            config.data,
            base,
            seed=config.run.seed,
            device=accelerator.device,
            latent_hints=latent_hints.wanted(config.target),
            pairs=pairs,
            levels=check,
            progress=bars.show,
        )
        admit(config, base, planned.sha256)
        samples = planned.encoded(bars.show)
    return Trainer(base, samples, target, config, accelerator, watchers=watchers(config.validation))


def check_pairs(pairs: Pairs, config: DataConfig, base: Base) -> None:
    """Tell what lint finds in a sample; DataError where that is an error."""
    with Bars(shown=True) as bars:
        report = lint(pairs, options_of(config, words_lost=base.text.words_lost), progress=bars.show)
    if report.findings:
        print(report.text())
    if report.errors:
        raise DataError(
            f"{pairs.name} has faults that a ControlNet would learn: {report.errors[0]} Put them right, or "
            "leave them out with the quarantine list of `controlnet-kit lint`; --no-lint does not look."
        )


def follow(trainer: Trainer) -> Finished:
    """Run, and tell."""
    with observed(trainer.config, trainer.accelerator) as tell, closing(trainer.run()) as events:
        for event in events:
            tell(event)
            if isinstance(event, Finished):
                return event
    raise TrainingError("The run ended before its end.")


def stopping() -> list[signal.Signals]:
    """Signals that end a run. Windows has no SIGHUP, and one that is ignored, as nohup has it, stays so."""
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        return [signal.SIGINT, signal.SIGTERM]
    return [signal.SIGINT, signal.SIGTERM, hangup]


@contextmanager
def until_signal(trainer: Trainer) -> Generator[Trainer]:
    """Ctrl-C or a terminating signal lets the present step end and saves; a second one ends the process at once."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        trainer.stop()

    before = {number: signal.getsignal(number) for number in stopping()}
    for number in before:
        signal.signal(number, stop)
    try:
        yield trainer
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Bars:
    """A progress bar for each stage of the cache."""

    shown: bool
    bar: Any = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, what: str, done: int, total: int) -> None:
        """A new stage begins a new bar."""
        if self.bar is None or self.bar.desc != what:
            self.__exit__()
            self.bar = tqdm(desc=what, total=total, disable=None if self.shown else True, mininterval=1)
            self.bar.desc = what
        self.bar.total = total
        self.bar.update(done - self.bar.n)
