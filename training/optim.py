"""Optimisers of torch and torchao, learning rates as functions of the step, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from .config import OptimizerConfig
from .errors import ConfigError
from .targets.target import ParameterGroup

ONE_CYCLE_WARMUP = 0.02
"""Share of the steps, where the settings say nothing."""
ONE_CYCLE_START = 1 / 25
BLOCK = 256
"""Numbers of an 8-bit state with a scale of their own."""


def rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """What learning rates are multiplied by in step `step` (from 0) of `steps`.

    constant and cosine rise along a line during the warm-up; one_cycle rises along half a cosine from 1/25 and falls
    along the other (Smith & Topin, arXiv 1708.07120).
    """
    share = config.warmup or (ONE_CYCLE_WARMUP if config.schedule == "one_cycle" else 0)
    warmup = share * steps if share < 1 else share
    if step < warmup:
        if config.schedule == "one_cycle":
            return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * (1 - math.cos(math.pi * step / warmup)) / 2
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2


def check(config: OptimizerConfig) -> None:
    """Raise ConfigError for an optimiser whose package is not installed."""
    if (config.name == "adamw8bit" or config.weights == "bf16") and find_spec("torchao") is None:
        raise ConfigError(
            f"optimizer.name {config.name} with optimizer.weights {config.weights} needs the package torchao, which is "
            "not installed: python -m pip install torchao"
        )


def make_optimizer(groups: Iterable[Mapping[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimiser for `groups` ({"params", "lr", "name"})."""
    parameters = [dict(group) for group in groups]
    rounded = config.weights == "bf16"
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.name == "sgd":
        return torch.optim.SGD(parameters, momentum=config.betas[0], **settings)
    if config.name == "adafactor":
        return torch.optim.Adafactor(parameters, **settings)
    settings["betas"] = config.betas
    if config.name == "adamw" and not rounded:
        return torch.optim.AdamW(parameters, fused=True, **settings)
    from torchao import optim as torchao

    make = torchao.AdamW8bit if config.name == "adamw8bit" else torchao._AdamW  # pyright: ignore[reportPrivateUsage]
    return make(parameters, bf16_stochastic_round=rounded, **settings)


def state_bytes(shape: Sequence[int], config: OptimizerConfig) -> float:
    """What the optimiser keeps for a weight of this shape once that was trained."""
    numbers = math.prod(shape)
    full = numbers * (2 if config.weights == "bf16" else 4)
    if config.name == "sgd":
        return full if config.betas[0] else 0
    if config.name == "adafactor":  # means over the last dimension and the one before it
        return full * sum(1 / side for side in shape[-2:]) if len(shape) > 1 else full
    if config.name == "adamw8bit":  # a byte each, and a float32 for every block
        return 2 * numbers * (1 + 4 / BLOCK)
    return 2 * full


class Optimizers:
    """One optimiser for all parameters, or one for each that steps as soon as its gradient is there."""

    def __init__(self, groups: Iterable[ParameterGroup], config: OptimizerConfig) -> None:
        self.groups = tuple(groups)
        self.in_backward = config.in_backward
        if self.in_backward:
            single = [(group, p) for group in self.groups for p in group.parameters]
            self.all = [make_optimizer([described(group, [p])], config) for group, p in single]
            self.hooks = [
                p.register_post_accumulate_grad_hook(Step(optimizer))
                for (_, p), optimizer in zip(single, self.all, strict=True)
            ]
        else:
            self.all = [make_optimizer([described(group, group.parameters) for group in self.groups], config)]

    def set_rate(self, factor: float) -> float:
        """Multiply every group's learning rate for this step; returns the first group's."""
        rates = {group.name: group.learning_rate * factor for group in self.groups}
        for optimizer in self.all:
            for group in optimizer.param_groups:
                value = rates[group["name"]]
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(value)
                else:
                    group["lr"] = value
        return next(iter(rates.values()))

    def zero_grad(self) -> None:
        """Forget gradients."""
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """All states."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.all]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The way back."""
        for optimizer, own in zip(self.all, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)


class Step:
    """The hook that steps inside the backward pass."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def __call__(self, _parameter: nn.Parameter) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def described(group: ParameterGroup, parameters: Iterable[nn.Parameter]) -> dict[str, Any]:
    """A parameter group as torch takes it."""
    return {"params": list(parameters), "lr": group.learning_rate, "name": group.name}


class Average:
    """The exponential moving average of weights: what is kept in the end.

    It begins short, as TensorFlow's does: a long one would show untrained weights for 1 / (1 - decay) steps.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.tensors: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], step: int) -> None:
        """After step `step` (from 0); the first one sets the average."""
        if not self.tensors:
            self.tensors = {name: value.detach().float().clone() for name, value in weights.items()}
            return
        lerp: Any = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]
        decay = min(self.decay, (1 + step) / (10 + step))
        lerp(list(self.tensors.values()), [weights[name].float() for name in self.tensors], 1 - decay)
