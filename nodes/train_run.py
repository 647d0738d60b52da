"""One training in the graph: the trainer's own loop, and what the host is told.

A run has a folder in output/controlnet/training, named by all that its result depends on: the same inputs go on in the
same folder, or find the finished file there; other inputs get another one, and so does starting over.
"""

from __future__ import annotations

import glob
import json
import logging
import re
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy.model_management import InterruptProcessingException

from ..training import trackers
from ..training.bases.base import Base
from ..training.config import DataConfig, TrainConfig
from ..training.data import latent_hints
from ..training.data.formats.open import open_pairs
from ..training.data.lint.run import lint, options_of
from ..training.data.origin import recorded
from ..training.data.pairs import Pairs
from ..training.data.pictures import hashed
from ..training.data.survey import check_levels
from ..training.errors import ConfigError, DataError, TrainingError
from ..training.events import Event, Finished
from ..training.loop import Trainer
from ..training.observers import kept
from ..training.output.history import History
from ..training.output.keeper import as_begun, find
from ..training.output.output import MARKER, MAY_CHANGE, MAY_CHANGE_TABLES, Tables
from ..training.planned import plan_samples
from ..training.planner import plan_text
from ..training.planner.plan import GIB, card, decided
from ..training.samples import Samples
from ..training.targets.make import make_target
from ..training.watch.watchers import watchers
from .train_settings import Wanted, merged

FOLDER = Path("controlnet", "training")
"""Below the host's output folder."""
CACHE = "cache"
FIRST = 1
"""Of a run without a number in its folder's name."""
HELD_OUT, SHARE_HELD_OUT = 4, 8
"""Pictures that validation draws, as far as every eighth is enough for."""
Tell = Callable[[Event], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a run is made of."""

    config: TrainConfig
    """With the run's folder."""
    samples: Samples
    pairs: str
    """What they are called, how many, and what was found in them."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished run."""

    path: Path
    """The ControlNet's file."""
    config: TrainConfig
    history: tuple[dict[str, Any], ...]
    """Of all of the run, whenever it was begun."""
    pairs: str


def root() -> Path:
    """Where runs and their cache are."""
    return Path(folder_paths.get_output_directory()).resolve() / FOLDER


def prepared(wanted: Wanted, base: Base, pairs: Pairs | None, progress: Progress) -> Prepared:
    """All that comes before the first step. Raises DataError for pairs that cannot be right."""
    config = merged(wanted.tables, wanted.more)
    if pairs is not None and (config.data.count or config.data.quarantine):
        raise ConfigError(
            "data.count and data.quarantine choose from `pairs`, and `images` are connected: choose there."
        )
    pairs = open_pairs(config.data) if pairs is None else pairs
    data = replace(recorded(config.data), cache=str(root() / CACHE))
    if data.validation == DataConfig().validation:
        data = replace(data, validation=float(min(HELD_OUT, len(pairs) // SHARE_HELD_OUT)))
    rows = plan_samples(
        data,
        base,
        seed=config.run.seed,
        latent_hints=latent_hints.wanted(config.target),
        pairs=pairs,
        progress=progress,
    )
    config = replace(config, base=replace(config.base, path=base.name, prediction=base.prediction), data=data)
    config = replace(config, run=replace(config.run, output=str(folder(wanted, config, base, rows.sha256))))
    config = as_begun(config)
    said = [f"{pairs.name}: {len(rows.rows)} to train on, {len(rows.held_out)} held out"]
    if wanted.check_pairs and find(config) is None:
        check_levels(pairs.name, [row.example.found for row in (*rows.rows, *rows.held_out)])
        said += checked(pairs, config.data, base)
    return Prepared(config=config, samples=rows.encoded(progress), pairs="\n".join(said))


def checked(pairs: Pairs, config: DataConfig, base: Base) -> list[str]:
    """What a look at some pairs found; DataError for what a ControlNet would learn."""
    report = lint(pairs, options_of(config, words_lost=base.text.words_lost))
    if report.errors:
        raise DataError(
            f"{pairs.name} has faults that a ControlNet would learn: {report.errors[0]} Put them right, or set "
            "`check_pairs` to false."
        )
    return [finding.line() for finding in report.findings if finding.severity == "warning"]


def folder(wanted: Wanted, config: TrainConfig, base: Base, samples_sha256: str) -> Path:
    """Of the run that has this name, base, data and settings.

    Runs that started over are numbered. To continue is to go on with the newest; starting over goes on with one that
    started over and has not come to its end, and else takes the next number.
    """
    settings = json.dumps(fixed(config.to_dict()), sort_keys=True)
    noise = (base.schedule.kind, base.schedule.beta_start, base.schedule.beta_end, base.schedule.zero_snr)
    code = hashed([settings, base.sha256, *noise, samples_sha256])[:8]
    first = root() / f"{wanted.name}-{code}"
    number = last_number(first)
    newest = first if number == FIRST else first.with_name(f"{first.name}-{number}")
    if not wanted.start_over or (number > FIRST and unfinished(newest)):
        return newest
    return first.with_name(f"{first.name}-{number + 1}")


def fixed(settings: Tables) -> dict[str, Any]:
    """What a run has to keep and what is not the default: settings that are added later change no run's name."""
    default = TrainConfig().to_dict()
    return {
        f"{table}.{key}": value
        for table, values in settings.items()
        for key, value in values.items()
        if table not in MAY_CHANGE_TABLES and f"{table}.{key}" not in MAY_CHANGE and value != default[table][key]
    }


def last_number(first: Path) -> int:
    """The highest of the folders first-2, first-3, ...; FIRST if there is none."""
    beside = first.parent.glob(f"{glob.escape(first.name)}-*")
    found = (re.fullmatch("[1-9][0-9]*", path.name[len(first.name) + 1 :]) for path in beside)
    return max((int(match.group()) for match in found if match), default=FIRST)


def unfinished(folder: Path) -> bool:
    """Whether a run was begun in a folder and did not come to its end: it was cancelled, or failed."""
    last: dict[str, Any] = next(iter(deque(History(folder).read(), maxlen=1)), {})
    return (folder / MARKER).is_file() and (last.get("event") != "Finished" or bool(last["stopped"]))


def planned(config: TrainConfig, base: Base, device: torch.device) -> TrainConfig:
    """With what fits into the memory of a GPU; a CPU's is not counted."""
    if device.type == "cpu":
        return config
    free: Any = comfy.model_management.get_free_memory(device)
    config = replace(config, hardware=replace(config.hardware, memory_gb=config.hardware.memory_gb or free / GIB))
    found = decided(config, base, card(config, device))
    if found is None:
        return config
    if not found.fits:
        logging.warning("%s: %s", config.run.output, plan_text.refusal(found))
    return found.config


def train(wanted: Wanted, base: Base, pairs: Pairs | None, tell: Tell, progress: Progress) -> Trained:
    """Train, or go on, or find that all is done.

    Raises InterruptProcessingException when the user cancels, after a checkpoint is written; all else before the first
    step, but for TrainingError and OutputError.
    """
    from accelerate import Accelerator

    device = comfy.model_management.get_torch_device()
    made = prepared(wanted, base, pairs, progress)
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    config = planned(made.config, base, device)
    logged = trackers.wanted(config) or None
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision="no", log_with=logged, project_dir=config.run.output
    )
    target = make_target(base, config)
    trainer = Trainer(base, made.samples, target, config, accelerator, watchers=watchers(config.validation))
    with kept(config, accelerator) as keep:
        finished = follow(trainer, keep, tell)
    history = tuple(History(trainer.output).read())
    return Trained(path=finished.path, config=config, history=history, pairs=made.pairs)


def follow(trainer: Trainer, keep: Tell, tell: Tell) -> Finished:
    """Run to the end, or to the checkpoint after the user cancelled.

    `keep` gets every event; `tell` shows them, and raises when the user cancelled.
    """
    cancelled: InterruptProcessingException | None = None
    try:
        with closing(trainer.run()) as events:
            for event in events:
                keep(event)
                if isinstance(event, Finished) and cancelled is None:
                    return event
                try:
                    comfy.model_management.throw_exception_if_processing_interrupted()
                    tell(event)
                except InterruptProcessingException as interrupt:
                    cancelled = cancelled or interrupt
                    trainer.stop()
    except InterruptProcessingException:  # no Exception; raised by a layer of the host's, while its VAE made pictures
        if trainer.keeper.saved != trainer.done:
            trainer.save()
        raise
    raise cancelled or TrainingError("The run ended without an end.")
