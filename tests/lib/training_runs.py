"""Short training runs on the embedded base, with random pairs that need no pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from controlnet_kit.training.bases import tiny
from controlnet_kit.training.bases.base import Base
from controlnet_kit.training.config import HardwareConfig, OptimizerConfig, RunConfig, TrainConfig
from controlnet_kit.training.events import Event
from controlnet_kit.training.feed import Draws
from controlnet_kit.training.loop import Trainer
from controlnet_kit.training.samples import Batch, Samples
from controlnet_kit.training.targets.make import make_target
from controlnet_kit.training.watch.watcher import Watcher
from torch import Tensor

CONFIG = TrainConfig(
    optimizer=OptimizerConfig(learning_rate=1e-3),
    hardware=HardwareConfig(precision="fp32"),
    run=RunConfig(steps=6, batch=4, log_every=1, save_every=100, seed=5),
)


@dataclass(frozen=True, kw_only=True)
class RandomSamples:
    """`Samples` of noise, smooth enough to be learnt: rows of 8x8 latents, the last few of 8x16."""

    count: int = 24
    wide: int = 0
    """How many have the second size."""
    sha256: str = "0" * 64

    def __len__(self) -> int:
        return self.count

    @property
    def sizes(self) -> Mapping[tuple[int, int], Tensor]:
        rows = torch.arange(self.count)
        return {(8, 8): rows[: self.count - self.wide], (8, 16): rows[self.count - self.wide :]}

    @property
    def held_out(self) -> RandomSamples:
        return replace(self, count=4, wide=0)

    def latent_shape(self, row: int) -> tuple[int, int, int]:
        return (4, 8, 16 if row >= self.count - self.wide else 8)

    def caption(self, row: int) -> str:
        return f"row {row}"

    def key(self, row: int) -> str:
        return str(row)

    def batch(self, rows: Tensor, posterior_noise: Tensor, dropped: Tensor) -> Batch:
        shape = self.latent_shape(int(rows[0]))
        sources = [torch.Generator().manual_seed(row) for row in rows.tolist()]
        latents = torch.stack([torch.randn(shape, generator=one) for one in sources])
        context = torch.stack([torch.randn(16, 64, generator=one) for one in sources])
        hint = latents[:, :3].sigmoid().repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        return Batch(
            latents=latents + 0.01 * posterior_noise,
            hint=hint,
            context=context * ~dropped[:, None, None],
            y=None,
            rows=rows,
            latent_hint=latents,
        )


def configured(output: Path, **tables: Mapping[str, Any]) -> TrainConfig:
    """`CONFIG` with other settings: configured(path, run={"steps": 3})."""
    run = replace(CONFIG.run, output=str(output))
    config = replace(CONFIG, run=run)
    return replace(config, **{name: replace(getattr(config, name), **changes) for name, changes in tables.items()})


def trainer(
    config: TrainConfig,
    samples: Samples | None = None,
    *,
    base: Base | None = None,
    watchers: Sequence[Watcher] = (),
    draws: Draws | None = None,
    accelerator: Accelerator | None = None,
) -> Trainer:
    """A run on a fresh copy of the embedded base, on the CPU."""
    base = base or tiny.as_base(tiny.load())
    target = make_target(base, config)
    accelerator = accelerator or Accelerator(cpu=True)
    return Trainer(base, samples or RandomSamples(), target, config, accelerator, watchers=watchers, draws=draws)


def finished(run: Trainer) -> list[Event]:
    """All events of a run."""
    return list(run.run())


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def of_kind(events: Iterable[Event], kind: type) -> list[Any]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]
