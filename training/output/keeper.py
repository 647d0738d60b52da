"""What a run keeps on the disk to go on from: the parts of a checkpoint, written and read."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from torch import Tensor

from ... import __version__
from ..bases.base import Base
from ..config import TrainConfig
from ..errors import ConfigError, DivergedError, OutputError
from ..events import StepDone
from ..optim import state_bytes
from ..planner.plan import ladder
from ..readings import lost_weights
from ..targets.target import Target
from . import output
from .checkpoints import Checkpoints, Found

if TYPE_CHECKING:
    from ..loop import Trainer

WEIGHTS, AVERAGE, OPTIMIZER, STATE = "weights.safetensors", "average.safetensors", "optimizer.pt", "state.json"
SHARDED = "sharded"
"""Folder of accelerate's own files, where no process has all weights."""


def find(config: TrainConfig, *, hashed: bool = False) -> Found | None:
    """The checkpoint that a run with these settings goes on from. Writes nothing.

    Raises OutputError for a folder that cannot be used, and ConfigError that names the settings that changed. Only with
    `hashed` are the checkpoint's files compared with their hashes: a run does that when it reads them, once.
    """
    folder = Path(config.run.output)
    output.describe(folder)
    found = Checkpoints(folder, config.run.keep).newest(hashed=hashed)
    if found is None:
        return None
    if config.run.resume == "never":
        raise OutputError(
            f'{folder} has a run of {found.step} steps, and run.resume is "never". Set it to "auto" to go on, '
            "or name another folder in run.output."
        )
    different = output.changed(found.facts["config"], config.to_dict())
    if different:
        raise ConfigError(
            f"The run in {folder} was begun with other settings: {'; '.join(different)}. "
            "Set them back to go on, or name another folder in run.output."
        )
    return found


def as_begun(config: TrainConfig) -> TrainConfig:
    """With hardware.fit: the choice that was made when the run in the folder was begun, which it has to go on with."""
    if not config.hardware.fit:
        return config
    found = Checkpoints(Path(config.run.output), config.run.keep).newest(hashed=False)
    if found is None:
        return config
    for _, variant in ladder(config, processes=1):
        if not output.changed(found.facts["config"], variant.to_dict()):
            base_dtype = found.facts["config"]["hardware"]["base_dtype"]
            return replace(variant, hardware=replace(config.hardware, fit=False, base_dtype=base_dtype))
    return config


def process(base: Base) -> dict[str, Any]:
    """What the base predicts, at which noise: training depends on it, and the UNet's hash does not tell."""
    names = ("steps", "beta_start", "beta_end", "kind", "zero_snr")
    return {"prediction": base.prediction, **{name: getattr(base.schedule, name) for name in names}}


def checkpoint_bytes(target: Target, config: TrainConfig) -> int:
    """Of a checkpoint after all weights were trained."""
    numbers = sum(tensor.numel() for tensor in target.module.state_dict().values())
    trained = [parameter for group in target.parameter_groups() for parameter in group.parameters]
    states = sum(state_bytes(parameter.shape, config.optimizer) for parameter in trained)
    width = 2 if config.optimizer.weights == "bf16" else 4
    return math.ceil((width + (4 if config.optimizer.ema else 0)) * numbers + states)


def admit(config: TrainConfig, base: Base, samples_sha256: str, *, hashed: bool = False) -> Found | None:
    """`find`, and what only base and data tell. Writes nothing.

    Raises ConfigError when they are not those that the run was begun with.
    """
    found = find(config, hashed=hashed)
    if found is None:
        return None
    for key, now, setting in (
        ("base_sha256", base.sha256, "base.path"),
        ("samples_sha256", samples_sha256, "data.path"),
    ):
        if found.facts[key] != now:
            raise ConfigError(
                f"{setting} holds something else than when the run in {config.run.output} was begun. "
                "Put that back to go on, or name another folder in run.output."
            )
    now, was = process(base), found.facts.get("process", {})  # which older checkpoints do not have
    different = [f"{name} {now[name]!r}, was {was[name]!r}" for name in now if was.get(name, now[name]) != now[name]]
    if different:
        raise ConfigError(
            f"{base.name} has the UNet that the run in {config.run.output} was begun with, and trains it otherwise: "
            f"{'; '.join(different)}. Put its scheduler's settings back to go on, or name another folder in run.output."
        )
    return found


class Keeper:
    """Writes and reads the checkpoints of one run."""

    def __init__(self, run: Trainer) -> None:
        self.run = run
        self.accelerator = run.accelerator
        self.checkpoints = Checkpoints(run.output, run.config.run.keep)
        self.saved = -1
        """The step of the last checkpoint."""
        self.samples_sha256 = run.samples.sha256
        self.unwatched: StepDone | None = None
        """The last step, as long as watchers are not through with it."""
        self.remembered = ""
        """Their states before it."""
        self.aside: list[Path] = []
        """Damaged checkpoints, newer than the one that the run went on from."""
        self.claimed = ExitStack()
        self.sharded = self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)

    def state_dict(self) -> Mapping[str, Tensor]:
        """All trained weights; collected from all processes where they are spread."""
        if self.sharded:
            gathered: dict[str, Any] = self.accelerator.get_state_dict(self.run.module)
            return gathered
        return self.run.target.module.state_dict()

    def facts(self) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        return {
            "config": self.run.config.to_dict(),
            "base_sha256": self.run.base.sha256,
            "samples_sha256": self.samples_sha256,
            "process": process(self.run.base),
            "versions": {
                "controlnet_kit": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

    def open(self) -> Path | None:
        """Claim the output folder, and take in its newest checkpoint if there is one: returns that one's folder."""
        found = admit(self.run.config, self.run.base, self.samples_sha256, hashed=True)
        count = self.more(0 if found is None else found.step)
        size = checkpoint_bytes(self.run.target, self.run.config)
        output.require_space(self.run.output, count * size, f"what it will save (checkpoints: {count})")
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.claimed.enter_context(output.alone(self.run.output))
            output.claim(self.run.output, self.facts())
            if found is not None:
                self.aside = self.checkpoints.set_aside(found.step)
        if found is None:
            return None
        self.read(found.path)
        self.run.done = self.saved = found.step
        return found.path

    def close(self) -> None:
        """Let others have the folder."""
        self.claimed.close()

    def more(self, done: int) -> int:
        """How many checkpoints there has to be room for after `done` steps: a new one comes before an old one goes."""
        run = self.run.config.run
        there = sum(path.name <= self.checkpoints.place(done).name for path in self.checkpoints.all())
        return max(min(run.keep + 1 - there, math.ceil((run.steps - done) / run.save_every)), 0)

    def save(self, *, alone: bool = False) -> Path:
        """Write a checkpoint of the present step; all processes call this, but for a main process left `alone`."""
        step, main = self.run.done, self.accelerator.is_main_process
        wait = (lambda: None) if alone else self.accelerator.wait_for_everyone
        with self.checkpoints.reporting(step):
            if main:
                self.checkpoints.begin(step, checkpoint_bytes(self.run.target, self.run.config))
            wait()
            self.write(self.checkpoints.unfinished(step))
            wait()
            if main:
                self.checkpoints.commit(step, self.facts())
        self.saved = step
        return self.checkpoints.place(step)

    def rescue(self, error: BaseException) -> None:
        """Save what a run has before an error leaves it, if that is anything new, whole and finite.

        One of several processes does so alone, so there is no way to save weights that are spread over them. What goes
        wrong here is not told: the first error is the one to put right.
        """
        run, forbidden = self.run, isinstance(error, DivergedError | OutputError)
        if forbidden or self.sharded or not self.accelerator.is_main_process:
            return
        if run.between and run.done not in (0, self.saved):
            with suppress(OutputError, OSError, RuntimeError):
                if not int(lost_weights(run.target.module)):
                    self.save(alone=True)

    def remember(self, step: StepDone) -> None:
        """Before watchers look at a step: what a checkpoint says of them until they have."""
        self.unwatched, self.remembered = step, json.dumps(self.memories())

    def memories(self) -> dict[str, Any]:
        """What watchers have to remember now."""
        return {watcher.name: dict(watcher.state()) for watcher in self.run.watchers}

    def write(self, folder: Path) -> None:
        """All parts."""
        if self.sharded:
            self.accelerator.save_state(str(folder / SHARDED))
        if not self.accelerator.is_main_process:
            return
        if not self.sharded:
            save_file(contiguous(self.run.target.module.state_dict()), folder / WEIGHTS)
            torch.save(self.run.optimizers.state_dict(), folder / OPTIMIZER)
        if self.run.average is not None:
            save_file(contiguous(self.run.average.tensors), folder / AVERAGE)
        (folder / STATE).write_text(json.dumps(self.state()), encoding="utf-8")

    def state(self) -> dict[str, Any]:
        """The small parts."""
        return {
            "timesteps": self.run.timesteps.squares.tolist(),
            "scaler": self.run.scaler.state_dict(),
            "micro_batch": self.run.micro,
            "scores": dict(self.run.scores),
            "watchers": self.memories() if self.unwatched is None else json.loads(self.remembered),
            "unwatched": None if self.unwatched is None else vars(self.unwatched),
        }

    def read(self, folder: Path) -> None:
        """The way back."""
        run, device = self.run, self.accelerator.device
        if self.sharded:
            self.accelerator.load_state(str(folder / SHARDED))
        else:
            run.target.module.load_state_dict(load_file(folder / WEIGHTS))
            run.optimizers.load_state_dict(torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True))
        if run.average is not None:
            run.average.tensors = {key: tensor.to(device) for key, tensor in load_file(folder / AVERAGE).items()}
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        run.timesteps.squares = torch.tensor(state["timesteps"], dtype=torch.float64)
        if state["scaler"]:  # empty if the run was not in fp16 before
            run.scaler.load_state_dict(state["scaler"])
        run.micro = min(run.micro, state["micro_batch"])
        run.scores = state["scores"]
        for watcher in run.watchers:
            watcher.restore(state["watchers"].get(watcher.name, {}))
        self.unwatched = StepDone(**state["unwatched"]) if state.get("unwatched") else None


def contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors wants them."""
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
