"""The gradient of one step: micro-batches of the step's batch, summed, and synchronised between processes once.

Shapes: B pairs of a micro-batch, C h w latent.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from ..cn_core.diffusion import NoiseSchedule
from . import hardware, objective, optim
from .bases.base import Base
from .config import TrainConfig
from .draws import Draw
from .errors import ConfigError
from .feed import Feed
from .lanes import LANES, Lanes
from .order import generator
from .samples import Batch
from .targets.target import Target
from .timesteps import BINS, Timesteps


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which pairs of a step's batch this process computes."""

    start: int
    stop: int

    @classmethod
    def of(cls, batch: int, accelerator: Accelerator) -> Share:
        """Processes take slices of the same draw; ConfigError when they cannot all have as many."""
        processes = accelerator.num_processes
        if batch % processes:
            raise ConfigError(f"run.batch must be a multiple of the {processes} processes, got {batch}.")
        count = batch // processes
        return cls(start=accelerator.process_index * count, stop=(accelerator.process_index + 1) * count)

    @property
    def count(self) -> int:
        """How many pairs."""
        return self.stop - self.start

    def slices(self, micro: int) -> list[tuple[int, int]]:
        """Micro-batches of at most `micro` pairs."""
        return [(start, min(start + micro, self.stop)) for start in range(self.start, self.stop, micro)]


@dataclass(frozen=True, kw_only=True)
class Computation:
    """What turns a draw into gradients."""

    base: Base
    target: Target
    config: TrainConfig
    accelerator: Accelerator
    module: nn.Module
    """The target's, as accelerate wraps it."""
    timesteps: Timesteps
    schedule: NoiseSchedule
    scale: Callable[[Tensor], Tensor]
    """Of the loss, for fp16."""
    lanes: Lanes | None = None

    def gradients(self, feed: Feed, step: int, share: Share, micro: int) -> Tensor:
        """Add the gradient of this process's share of a step; returns the share's mean loss, on the device."""
        slices, total = share.slices(micro), torch.zeros((), device=self.accelerator.device)
        if self.lanes is not None and len(slices) == 1 and share.count >= LANES:
            (whole,) = feed.parts(step, slices)
            return self.in_lanes(self.lanes, *whole)
        seen = list[tuple[Tensor, Tensor]]()
        with self.autocast() if len(slices) > 1 else nullcontext():  # so that weights are cast once for all of them
            for (_, stop), (draw, batch) in zip(slices, feed.parts(step, slices), strict=True):
                with nullcontext() if stop == share.stop else self.accelerator.no_sync(self.module):
                    rows, timesteps = self.losses(draw, batch)
                    loss = rows.sum() / share.count
                    self.accelerator.backward(self.scale(loss))
                total += loss.detach()
                seen.append((rows.detach(), timesteps))
        self.learn(seen)
        return total

    def rehearse(self, feed: Feed, step: int, share: Share, micro: int) -> None:
        """The first micro-batches of a step, which take as much memory as all; other processes hear nothing of it."""
        slices = share.slices(micro)
        with self.autocast() if len(slices) > 1 else nullcontext(), self.accelerator.no_sync(self.module):
            for one in slices[:2]:
                rows, _ = self.losses(*feed.request((step, *one)).result())
                self.accelerator.backward(self.scale(rows.sum()))

    def in_lanes(self, lanes: Lanes, draw: Draw, batch: Batch) -> Tensor:
        """The same for a batch whose halves are computed side by side."""
        count = len(draw.rows)

        def half(start: int, stop: int) -> tuple[Tensor, Tensor]:
            rows, timesteps = self.losses(draw.part(start, stop), batch.part(start, stop))
            (rows.sum() / count).backward()
            return rows.detach(), timesteps

        rows, timesteps = map(torch.cat, zip(*lanes(half, count), strict=True))
        self.learn([(rows, timesteps)])
        return rows.sum() / count

    def learn(self, seen: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Let the distribution of timesteps learn from the losses and timesteps that all processes saw."""
        if self.timesteps.kind == "learned":
            mine = torch.zeros(2, BINS, dtype=torch.float64)
            for losses, chosen in seen:
                mine += tally(losses, chosen, self.timesteps)
            both = self.accelerator.reduce(mine.to(self.accelerator.device), reduction="sum")
            self.timesteps.learn(*both.cpu())  # pyright: ignore[reportAttributeAccessIssue]

    def losses(self, draw: Draw, batch: Batch) -> tuple[Tensor, Tensor]:
        """The weighted loss of each pair (B), and its timestep (B, on the CPU)."""
        device, settings = self.accelerator.device, self.config.objective
        batch, noise = batch.to(device), draw.noise.to(device, non_blocking=True)
        chosen = self.timesteps.choose(draw.levels)
        timesteps = hardware.sent(chosen, device)
        noisy = hardware.laid_out(self.schedule.add_noise(batch.latents, noise, timesteps), self.config.hardware)
        with self.autocast():
            prediction = self.target.predict(self.module, self.base.unet, batch, noisy, timesteps)
        wanted = objective.target(self.base.prediction, self.schedule, batch.latents, noise, timesteps)
        rows = objective.losses(prediction, wanted)
        if settings.min_snr_gamma:
            alpha_bar = self.schedule.alpha_bar[timesteps]
            rows = rows * objective.min_snr_weight(alpha_bar, settings.min_snr_gamma, self.base.prediction)
        weight = self.timesteps.weight(chosen)
        return rows if weight is None else rows * hardware.sent(weight, device), chosen

    def autocast(self) -> torch.autocast:
        """The precision of the computation."""
        dtype = hardware.DTYPES[self.config.hardware.precision]
        kind = self.accelerator.device.type
        return torch.autocast(kind, dtype if dtype != torch.float32 else None, enabled=dtype != torch.float32)


def tally(losses: Tensor, chosen: Tensor, timesteps: Timesteps) -> Tensor:
    """Unweighted squared losses summed in each range of timesteps, and how many: 2 BINS float64."""
    weight, bins = timesteps.weight(chosen), timesteps.bins(chosen)
    plain = losses.double().cpu() if weight is None else losses.double().cpu() / weight
    zeros = torch.zeros(BINS, dtype=torch.float64)
    return torch.stack([zeros.index_add(0, bins, plain.square()), zeros.index_add(0, bins, torch.ones_like(plain))])


def micro_batch(config: TrainConfig, share: Share) -> int:
    """Pairs computed at once: as set, else all of the share."""
    return min(config.hardware.micro_batch or share.count, share.count)


def check(config: TrainConfig, accelerator: Accelerator) -> None:
    """Raise ConfigError for settings that do not go with this set-up."""
    hardware.check(config.hardware, accelerator.device)
    optim.check(config.optimizer)
    share, kind = Share.of(config.run.batch, accelerator), accelerator.distributed_type
    micro = micro_batch(config, share)
    if config.optimizer.in_backward and (accelerator.num_processes > 1 or micro < share.count):
        raise ConfigError(
            "optimizer.in_backward needs one process and the whole batch at once, got "
            f"{accelerator.num_processes} processes and micro-batches of {micro} for a batch of {config.run.batch}."
        )
    check_accumulation(accelerator)
    if kind == DistributedType.DEEPSPEED:
        check_deepspeed(config, share, micro)
    if kind in (DistributedType.DEEPSPEED, DistributedType.FSDP) and config.optimizer.ema:
        raise ConfigError("optimizer.ema needs all weights in one process: set it to 0 with FSDP and DeepSpeed.")


def check_accumulation(accelerator: Accelerator) -> None:
    """Raise ConfigError where accelerate or DeepSpeed would add up steps: the loop does that itself."""
    plugin = accelerator.state.deepspeed_plugin
    engine = "auto" if plugin is None else plugin.deepspeed_config.get("gradient_accumulation_steps", "auto")
    for told in (accelerator.gradient_accumulation_steps, engine):
        if told not in (1, "auto"):
            raise ConfigError(
                f"gradient_accumulation_steps of accelerate and DeepSpeed must be 1, got {told}: run.batch is what a "
                "step sees, and hardware.micro_batch what is computed of it at once."
            )


def check_deepspeed(config: TrainConfig, share: Share, micro: int) -> None:
    """Raise ConfigError for what its engine, which steps at the end of each backward pass, would do wrong."""
    if micro < share.count:
        raise ConfigError(
            f"With DeepSpeed hardware.micro_batch must be run.batch / processes, {share.count}: got {micro}."
        )
    if config.hardware.precision == "fp16":
        raise ConfigError("With DeepSpeed hardware.precision fp16 is not possible: set it to bf16 or fp32.")


def tell_deepspeed(config: TrainConfig, share: Share, accelerator: Accelerator) -> None:
    """Fill in what accelerate would take from a DataLoader, and what the settings say; nothing without DeepSpeed.

    What is not "auto" stays, but that stage 3 collects weights. ConfigError for another number of pairs than the run's.
    """
    plugin = accelerator.state.deepspeed_plugin
    if plugin is None:
        return
    told: dict[str, Any] = plugin.deepspeed_config
    wanted = {"train_micro_batch_size_per_gpu": share.count, "gradient_clipping": config.optimizer.clip}
    told.update({name: value for name, value in wanted.items() if told.get(name, "auto") == "auto"})
    if plugin.zero_stage == 3:  # else no file could be written
        told["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
    if told["train_micro_batch_size_per_gpu"] != share.count:
        raise ConfigError(
            "DeepSpeed's train_micro_batch_size_per_gpu must be run.batch / processes, "
            f'{share.count}, or "auto": got {told["train_micro_batch_size_per_gpu"]}.'
        )


@contextmanager
def seeded(device: torch.device, seed: int, *purpose: int | str) -> Generator[None]:
    """Torch's own generators seeded for one purpose; afterwards they are as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator(seed, *purpose).initial_seed())
        yield
