"""One training in the graph: settings from the node's inputs, the trainer's own loop, and what the host is told.

A run has a folder in output/controlnet/training, named by all that its result depends on: the same inputs go on in the
same folder, or find the finished file there; other inputs get another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy.model_management import InterruptProcessingException

from ..cn_core.errors import ControlNetKitError
from ..training.bases.base import Base
from ..training.config import DataConfig, RunConfig, TrainConfig
from ..training.data.formats.open import open_pairs
from ..training.data.pairs import Pairs
from ..training.data.pictures import hashed
from ..training.errors import ConfigError, TrainingError
from ..training.events import Event, Finished
from ..training.history import History
from ..training.loop import Trainer
from ..training.output import MAY_CHANGE, MAY_CHANGE_TABLES
from ..training.plan import GIB, card, decided
from ..training.planned import plan_samples
from ..training.samples import Samples
from ..training.tables import parse
from ..training.targets.make import make_target
from ..training.watchers import watchers

FOLDER = Path("controlnet", "training")
"""Below the host's output folder."""
CACHE = "cache"
HELD_OUT, SHARE_HELD_OUT = 4, 8
"""Pictures that validation draws, as far as every eighth is enough for."""
SAVE_EVERY = 250
READINGS = 200
"""Of the loss, at least so many in a run that is long enough."""

Tell = Callable[[Event], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the node is asked for, besides pictures and base."""

    tables: dict[str, dict[str, Any]]
    """Settings that are the node's own inputs."""
    more: str
    """Others, as TOML."""
    name: str
    start_over: bool


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


def merged(tables: dict[str, dict[str, Any]], more: str) -> TrainConfig:
    """The node's settings and further ones; raises ConfigError for what is unknown, out of bounds or the node's."""
    found = parse(more, "The node's settings")
    for table, values in tables.items():
        theirs = found.setdefault(table, {})
        if isinstance(theirs, dict):
            if taken := sorted(values.keys() & theirs.keys()):
                raise ConfigError(f"{table}.{taken[0]} is set by the node itself. Take it out of the settings.")
            theirs.update(values)
    return TrainConfig.from_tables(found)


def check_name(name: str) -> None:
    """Raise ControlNetKitError for a name, which anyone may have written, that is none for a folder."""
    if not name.strip(". ") or not name.isprintable() or set(name) & set('/\\:*?"<>|') or len(name) > 48:
        raise ControlNetKitError(f"save_name is {name!r:.80}; use 1 to 48 letters, digits, spaces, - and _.")


def prepared(wanted: Wanted, base: Base, pairs: Pairs | None, progress: Progress) -> tuple[TrainConfig, Samples, str]:
    """Settings with the run's folder, and the encoded pairs with what they are called."""
    config = merged(wanted.tables, wanted.more)
    pairs = open_pairs(config.data) if pairs is None else pairs
    data = replace(config.data, cache=str(root() / CACHE))
    if data.validation == DataConfig().validation:
        data = replace(data, validation=float(min(HELD_OUT, len(pairs) // SHARE_HELD_OUT)))
    samples = plan_samples(data, base, seed=config.run.seed, pairs=pairs, progress=progress).encoded(progress=progress)
    config = replace(config, base=replace(config.base, path=base.name), data=data)
    config = replace(config, run=replace(config.run, output=str(folder(wanted, config, base, samples))))
    return config, samples, f"{pairs.name}: {len(samples)} to train on, {len(samples.held_out)} held out"


def folder(wanted: Wanted, config: TrainConfig, base: Base, samples: Samples) -> Path:
    """Of the run that has this name, base, data and settings; one that is free if it has to start over."""
    fixed = {
        f"{table}.{key}": value
        for table, values in config.to_dict().items()
        for key, value in values.items()
        if table not in MAY_CHANGE_TABLES and f"{table}.{key}" not in MAY_CHANGE
    }
    code = hashed([json.dumps(fixed, sort_keys=True), base.sha256, samples.sha256])[:8]
    first = root() / f"{wanted.name}-{code}"
    if not wanted.start_over:
        return first
    number, free = 2, first
    while free.exists():
        free, number = first.with_name(f"{first.name}-{number}"), number + 1
    return free


def planned(config: TrainConfig, base: Base, device: torch.device) -> TrainConfig:
    """With what fits into the memory of a GPU; a CPU's is not counted."""
    if device.type == "cpu":
        return config
    free: Any = comfy.model_management.get_free_memory(device)
    config = replace(config, hardware=replace(config.hardware, memory_gb=config.hardware.memory_gb or free / GIB))
    return decided(config, base, card(config, device))


def precision(device: torch.device) -> str:
    """Of the computation, as the host would choose."""
    if comfy.model_management.should_use_bf16(device):
        return "bf16"
    return "fp16" if comfy.model_management.should_use_fp16(device) else "fp32"


def train(wanted: Wanted, base: Base, pairs: Pairs | None, tell: Tell, progress: Progress) -> Trained:
    """Train, or go on, or find that all is done.

    Raises InterruptProcessingException when the user cancels, after a checkpoint is written; all else before the first
    step, but for TrainingError and OutputError.
    """
    from accelerate import Accelerator

    device = comfy.model_management.get_torch_device()
    config, samples, pairs_text = prepared(wanted, base, pairs, progress)
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    config = planned(config, base, device)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    target = make_target(base, config)
    trainer = Trainer(base, samples, target, config, accelerator, watchers=watchers(config.validation))
    finished = follow(trainer, tell)
    history = tuple(History(trainer.output).read())
    return Trained(path=finished.path, config=config, history=history, pairs=pairs_text)


def follow(trainer: Trainer, tell: Tell) -> Finished:
    """Run to the end, or to the checkpoint after the user cancelled."""
    cancelled: InterruptProcessingException | None = None
    try:
        for event in trainer.run():
            if isinstance(event, Finished) and cancelled is None:
                return event
            try:
                comfy.model_management.throw_exception_if_processing_interrupted()
                tell(event)
            except InterruptProcessingException as interrupt:
                cancelled = cancelled or interrupt
                trainer.stop()
    except InterruptProcessingException:  # raised by a layer of the host's, while its VAE made pictures
        if trainer.keeper.saved != trainer.done:
            trainer.save()
        raise
    raise cancelled or TrainingError("The run ended without an end.")


def readings(steps: int) -> int:
    """run.log_every for a run of so many steps."""
    return max(1, min(RunConfig().log_every, steps // READINGS))
