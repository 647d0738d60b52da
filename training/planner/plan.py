"""The plan of a run before it starts: what it costs, and the cheapest way that fits into the device's memory."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from .. import hardware, optim
from ..bases.base import Base
from ..config import TrainConfig
from .cost import Checkpointing, Cost, Costs, costs

GIB = 2**30
SLACK = 1.0
"""GiB that CUDA and its allocator take beside the tensors."""
ENOUGH = 4
"""Pairs at once that keep a device busy: fewer are taken only when recomputing everything does not allow more."""
EFFICIENCY = 0.4
"""Share of the speed of a matrix product that a run is assumed to reach."""
IN_BACKWARD = "optimizer.in_backward true, optimizer.clip 0 (the whole batch at once)"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a run has."""

    name: str
    memory: float
    """GiB that may be used."""
    tflops: float
    """Of a matrix product in the type of the computation."""
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Settings with what they take."""

    config: TrainConfig
    """With hardware.checkpointing and hardware.micro_batch decided."""
    memory: Mapping[str, float]
    """GiB by part."""
    kind: Checkpointing
    cost: Cost

    @property
    def total(self) -> float:
        """GiB."""
        return sum(self.memory.values())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is going to happen."""

    chosen: Fit
    card: Card
    costs: Costs
    ladder: tuple[tuple[str, Fit], ...]
    """What could be changed to need less, and what it takes then at least, see `ladder` and `smallest`."""

    @property
    def config(self) -> TrainConfig:
        """The settings of the run, nothing left to decide."""
        return self.chosen.config

    @property
    def fits(self) -> bool:
        """Whether memory is thought to be enough."""
        return self.chosen.total <= self.card.memory

    @property
    def step_tflop(self) -> float:
        """Of all processes."""
        return self.chosen.cost.tflop * self.config.run.batch

    @property
    def validation_tflop(self) -> float:
        """Of all the pictures of the run; each is drawn twice, for guidance."""
        settings = self.config.validation
        times = self.config.run.steps // settings.every if settings.every else 0
        return times * settings.count * settings.steps * 2 * self.costs.forward

    @property
    def hours(self) -> float:
        """At EFFICIENCY of the card's speed."""
        total = self.step_tflop * self.config.run.steps / self.card.processes + self.validation_tflop
        return total / (EFFICIENCY * self.card.tflops) / 3600


def plan(config: TrainConfig, counted: Costs, card: Card) -> Plan:
    """Choose: the fewest operations that fit, then the largest micro-batch.

    Only what leaves the result as it is gets decided: checkpointing "auto" and micro_batch 0. With hardware.fit the
    optimiser, its weights and the base's type are changed as well, in the order of `ladder`: the first that fits, or
    the one that takes least.
    """
    variants = dict(ladder(config, card.processes))
    wanted = variants.values() if config.hardware.fit else [config]
    tried = [best(variant, counted, card) for variant in wanted]
    chosen = next((one for one in tried if one.total <= card.memory), min(tried, key=lambda one: one.total))
    rungs = tuple((name, smallest(variant, counted, card)) for name, variant in variants.items())
    return Plan(chosen=chosen, card=card, costs=counted, ladder=rungs)


def decided(config: TrainConfig, base: Base, card: Card) -> Plan | None:
    """The plan of a run on this card; None, and nothing is counted, where nothing is left to decide.

    Raises ConfigError where hardware.fit chose an optimiser whose package is not installed.
    """
    settings = config.hardware
    if settings.micro_batch and settings.checkpointing != "auto" and not settings.fit:
        return None
    found = plan(config, costs(config, base), card)
    optim.check(found.config.optimizer)
    return found


def ladder(config: TrainConfig, processes: int) -> Iterator[tuple[str, TrainConfig]]:
    """The settings, and what may be changed to need less memory; what is so already is left out.

    Each has the changes before it, but for steps inside the backward pass: those want the whole batch at once, and the
    other changes do without.
    """
    for name, variant in cumulative(config):
        yield name, variant
        if may_step_in_backward(variant, processes):
            inside = replace(variant.optimizer, in_backward=True, clip=0.0)
            yield f"{IN_BACKWARD}, with {name}", replace(variant, optimizer=inside)


def cumulative(config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """The settings, and changes one after the other that leave free how many pairs are computed at once."""
    yield "as set", config
    optimizer, precision = config.optimizer, config.hardware.precision
    if optimizer.name == "adamw":
        config = replace(config, optimizer=replace(config.optimizer, name="adamw8bit"))
        yield "optimizer.name adamw8bit", config
    if config.hardware.base_dtype not in ("int8", "fp8"):
        config = replace(config, hardware=replace(config.hardware, base_dtype="int8"))
        yield "hardware.base_dtype int8", config
    if optimizer.weights == "fp32" and precision == "bf16" and config.optimizer.name.startswith("adamw"):
        config = replace(config, optimizer=replace(config.optimizer, weights="bf16"))
        yield "optimizer.weights bf16", config


def may_step_in_backward(config: TrainConfig, processes: int) -> bool:
    """Whether that is a change, and one that `compute.check` lets pass; 8-bit states are tried before it."""
    optimizer, settings = config.optimizer, config.hardware
    whole = processes == 1 and (not settings.micro_batch or settings.micro_batch >= config.run.batch)
    return whole and settings.precision != "fp16" and not optimizer.in_backward and optimizer.name != "adamw"


def best(config: TrainConfig, counted: Costs, card: Card) -> Fit:
    """The choice of recomputed activations and micro-batch for these settings; the smallest if none fits."""
    share, given = max(config.run.batch // card.processes, 1), config.hardware.micro_batch
    wanted, whole = min(given or share, share), given > 0 or config.optimizer.in_backward
    single = [fit(config, counted, card, kind, 1) for kind in counted.choices]
    most = max(room(one, card) for one in single)
    least = wanted if whole else max(min(wanted, ENOUGH, most), 1)
    enough = [one for one in single if room(one, card) >= least]
    one = min(enough, key=lambda one: one.cost.tflop) if enough else min(single, key=lambda one: one.total)
    pairs = wanted if whole else max(min(wanted, room(one, card)), 1)
    return fit(config, counted, card, one.kind, math.ceil(share / math.ceil(share / pairs)))


def smallest(config: TrainConfig, counted: Costs, card: Card) -> Fit:
    """As much recomputed as may be, and one pair at a time, or the whole batch where steps are in the backward pass."""
    pairs = config.run.batch if config.optimizer.in_backward else 1
    return min((fit(config, counted, card, kind, pairs) for kind in counted.choices), key=lambda one: one.total)


def room(one: Fit, card: Card) -> int:
    """Pairs at once that fit, from what one takes."""
    each = one.memory["activations"]
    return math.floor((card.memory - one.total + each) / each)


def fit(config: TrainConfig, counted: Costs, card: Card, kind: Checkpointing, pairs: int) -> Fit:
    """What `pairs` at once take."""
    cost, optimizer = counted.choices[kind], config.optimizer
    size = 2 if optimizer.weights == "bf16" else 4
    grads = (counted.tensor if optimizer.in_backward else counted.trained) * size
    parts = {
        "base": base_bytes(counted, config),
        "weights": counted.trained * size,
        "gradients": grads * (2 if card.processes > 1 else 1),
        "optimiser": sum(optim.state_bytes(shape, optimizer) for shape in counted.shapes),
        "average": counted.trained * 4 if optimizer.ema else 0,
        "weights cast": cost.casts if optimizer.weights == "fp32" else 0,
        "activations": cost.activations * pairs,
        "encoders": counted.encoding.weights,
        "encoding": counted.encoding.workspace * min(pairs, counted.encoding.at_once),
        "allocator": SLACK * GIB,
    }
    decided = replace(config.hardware, checkpointing=kind, micro_batch=pairs)
    memory = {name: value / GIB for name, value in parts.items()}
    return Fit(config=replace(config, hardware=decided), memory=memory, kind=kind, cost=cost)


def base_bytes(counted: Costs, config: TrainConfig) -> float:
    """Of the frozen UNet."""
    kind = hardware.base_dtype(config.hardware)
    wide = hardware.DTYPES.get(kind, hardware.DTYPES[config.hardware.precision]).itemsize
    return wide * counted.base - (wide - 1) * counted.narrow * (kind in ("int8", "fp8"))


def card(config: TrainConfig, device: torch.device, processes: int = 1) -> Card:
    """This machine's device, as the settings limit it; every process calls this, and all get the smallest memory."""
    if device.type == "cuda":
        name, memory = torch.cuda.get_device_properties(device).name, free(device) / GIB
    else:
        import psutil

        name, memory = f"{device.type} with {torch.get_num_threads()} threads", psutil.virtual_memory().total / GIB
    speed = config.hardware.tflops or matmul_tflops(device, hardware.DTYPES[config.hardware.precision])
    return Card(name=name, memory=config.hardware.memory_gb or least(memory, device), tflops=speed, processes=processes)


def free(device: torch.device) -> int:
    """Bytes of a GPU that others leave, with those that this process's allocator holds and does not use."""
    left, _ = torch.cuda.mem_get_info(device)
    return left + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def least(memory: float, device: torch.device) -> float:
    """Of all processes, so that they decide alike."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return memory
    found = torch.tensor(memory, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MIN)
    return found.item()


def matmul_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """The best of a few matrix products, in TFLOP/s."""
    side, times = (8192, 10) if device.type == "cuda" else (1024, 3)
    one = torch.randn(side, side, device=device, dtype=dtype)
    seconds: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        (one @ one)[0, 0].item()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds) / 1e12
