"""What a step costs, counted without computing it: networks of the real size on the meta device.

Operations are counted by torch's counter (2 for each multiply-add, attention as two matrix products), memory as
`counting` has it. Shapes: B pairs, C h w latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..cn_core.networks.backend import Backend
from ..cn_core.networks.unet import UNet
from . import hardware, objective, quantised
from .bases.base import Base
from .config import TrainConfig
from .counting import Autocast, Counter
from .samples import Batch
from .targets.make import make_target
from .targets.target import Target

META = torch.device("meta")
Checkpointing = Literal["none", "control", "decoder", "both"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one pair, with one choice of recomputed activations."""

    tflop: float
    """Forward and backward, recomputation included."""
    activations: int
    """Bytes that autograd keeps, and those of the largest block that is computed again."""
    casts: int
    """Bytes of weights in the type of the computation, whatever the number of pairs."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What is counted for a run."""

    choices: Mapping[Checkpointing, Cost]
    """Those that the settings leave open."""
    forward: float
    """TFLOP of a forward pass of one pair."""
    base: int
    """Numbers in the frozen UNet."""
    narrow: int
    """Those of the weights that int8 and fp8 make smaller."""
    trained: int
    """Numbers that are trained."""
    tensor: int
    """Those of the largest trained tensor."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Everything in a step, on the meta device."""

    unet: UNet
    target: Target
    batch: Batch
    """One pair."""

    def parameters(self) -> list[nn.Parameter]:
        """All."""
        return [*self.unet.parameters(), *self.target.module.parameters()]

    def loss(self) -> Tensor:
        """The forward pass."""
        timesteps = torch.empty(1, dtype=torch.long, device=META)
        prediction = self.target.predict(self.target.module, self.unet, self.batch, self.batch.latents, timesteps)
        return objective.losses(prediction, self.batch.latents).mean()


def networks(config: TrainConfig, base: Base) -> Networks:
    """As the run would make them, in the state of its last step, where all that is ever trained is; float32."""
    unet = UNet(base.unet.config, Backend(device=META)).requires_grad_(False)
    fresh = replace(config.target, init="base", keep_hint_encoder=False)
    target = make_target(replace(base, unet=unet), replace(config, target=fresh))
    target.module.to(META)
    target.begin(config.run.steps - 1)
    return Networks(unet=unet, target=target, batch=one_pair(config, base))


def one_pair(config: TrainConfig, base: Base) -> Batch:
    """Of the settings' resolution."""
    side, width = config.data.resolution // base.codec.factor, base.unet.config.adm_in_channels
    return Batch(
        latents=torch.empty(1, base.codec.channels, side, side, device=META),
        hint=torch.empty(1, 3, side * base.codec.factor, side * base.codec.factor, device=META),
        context=torch.empty(1, base.text.tokens, base.unet.config.context_dim, device=META),
        y=None if width is None else torch.empty(1, width, device=META),
        rows=torch.zeros(1, dtype=torch.long),
    )


def recomputed(made: Networks, kind: Checkpointing) -> list[nn.Module]:
    """What `hardware` would compute again."""
    modules: list[nn.Module] = [made.target.module] if kind in ("control", "both") else []
    modules += [made.unet.output_blocks] if kind in ("decoder", "both") else []
    return [block for module in modules for block in hardware.recomputable(module)]


def costs(config: TrainConfig, base: Base) -> Costs:
    """Counted on networks of the real size: seconds."""
    wanted = config.hardware.checkpointing
    kinds: tuple[Checkpointing, ...] = get_args(Checkpointing) if wanted == "auto" else (wanted,)
    made = networks(config, base)
    blocks = recomputed(made, "both")
    operations, counter = FlopCounterMode(display=False), Counter(made.parameters(), blocks)
    with operations, counter.counting(operations):
        loss = made.loss()
        forward = operations.get_total_flops()
        loss.backward()
    total, each = operations.get_total_flops(), dict(counter.flops)
    lower(made, config)
    counter = Counter(made.parameters(), blocks)
    with Autocast(hardware.DTYPES[config.hardware.precision]) as autocast, counter.counting():
        _loss = made.loss()
    cast, trained = list(autocast.cast.values()), [p.numel() for p in made.target.module.parameters()]
    choices: dict[Checkpointing, Cost] = {}
    for kind in kinds:
        again = recomputed(made, kind)
        choices[kind] = Cost(
            tflop=(total + sum(each.get(block, 0) for block in again)) / 1e12,
            activations=counter.kept(again, without=cast) + counter.largest(again),
            casts=sum(tensor.nbytes for tensor in cast),
        )
    narrow = sum(layer.weight.numel() for _, layer in quantised.layers(made.unet))
    return Costs(
        choices=choices,
        forward=forward / 1e12,
        base=sum(p.numel() for p in made.unet.parameters()),
        narrow=narrow,
        trained=sum(trained),
        tensor=max(trained),
    )


def lower(made: Networks, config: TrainConfig) -> None:
    """To the types that weights have in the run, in place; those of an 8-bit base in its computation's."""
    kind = hardware.base_dtype(config.hardware)
    made.unet.to(hardware.DTYPES.get(kind, hardware.DTYPES[config.hardware.precision]))
    if config.optimizer.weights == "bf16":
        made.target.module.to(torch.bfloat16)
