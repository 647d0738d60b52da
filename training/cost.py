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
from . import hardware, objective
from .bases.base import Base
from .config import TrainConfig
from .counting import Autocast, Kept
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
class Networks:
    """Everything in a step, on the meta device."""

    unet: UNet
    target: Target
    batch: Batch
    """One pair."""

    def loss(self) -> Tensor:
        """The forward pass."""
        timesteps = torch.empty(1, dtype=torch.long, device=META)
        prediction = self.target.predict(self.target.module, self.unet, self.batch, self.batch.latents, timesteps)
        return objective.losses(prediction, self.batch.latents).mean()


def networks(config: TrainConfig, base: Base) -> Networks:
    """As the run would make them, in the state of its last step, where all that is ever trained is; float32."""
    unet = UNet(base.unet.config, Backend(device=META)).requires_grad_(False)
    target = make_target(replace(base, unet=unet), replace(config, target=replace(config.target, init="base")))
    target.module.to(META)
    target.begin(config.run.steps - 1)
    return Networks(unet=unet, target=target, batch=one_pair(config, base))


def one_pair(config: TrainConfig, base: Base) -> Batch:
    """Of the settings' resolution."""
    side, width = config.data.resolution // base.codec.factor, base.unet.config.adm_in_channels
    return Batch(
        latents=torch.empty(1, base.codec.channels, side, side, device=META),
        hint=torch.empty(1, 3, side * base.codec.factor, side * base.codec.factor, device=META),
        context=torch.empty(1, *base.text.encode([""]).context.shape[1:], device=META),
        y=None if width is None else torch.empty(1, width, device=META),
        rows=torch.zeros(1, dtype=torch.long),
    )


def recomputed(made: Networks, kind: Checkpointing) -> list[nn.Module]:
    """What `hardware` would compute again."""
    control, decoder = kind in ("control", "both"), kind in ("decoder", "both")
    modules = [made.target.module] * control + [made.unet.output_blocks] * decoder
    return [block for module in modules for block in hardware.recomputable(module)]


def wrap(made: Networks, kind: Checkpointing) -> Networks:
    """In place."""
    if kind in ("control", "both"):
        hardware.recompute(made.target.module)
    if kind in ("decoder", "both"):
        hardware.recompute(made.unet.output_blocks)
    return made


def costs(config: TrainConfig, base: Base) -> Mapping[Checkpointing, Cost]:
    """Of each choice that the settings leave open."""
    wanted = config.hardware.checkpointing
    kinds: tuple[Checkpointing, ...] = get_args(Checkpointing) if wanted == "auto" else (wanted,)
    return {kind: cost(config, base, kind) for kind in kinds}


def cost(config: TrainConfig, base: Base, kind: Checkpointing) -> Cost:
    """Of one choice."""
    activations, casts = memory(wrap(lowered(config, base), kind), config)
    plain = lowered(config, base)
    blocks = recomputed(plain, kind)
    with FlopCounterMode(display=False) as counter:
        wrap(networks(config, base), kind).loss().backward()
    return Cost(
        tflop=counter.get_total_flops() / 1e12,
        activations=activations + largest(plain, blocks, config),
        casts=casts,
    )


def lowered(config: TrainConfig, base: Base) -> Networks:
    """With weights in the types that they have in the run; those of an fp8 base in its computation's."""
    made = networks(config, base)
    kind = hardware.base_dtype(config.hardware)
    made.unet.to(hardware.DTYPES.get(kind, torch.bfloat16))
    if config.optimizer.weights == "bf16":
        made.target.module.to(torch.bfloat16)
    return made


def memory(made: Networks, config: TrainConfig) -> tuple[int, int]:
    """Bytes of activations, and of weights that were cast."""
    kept = Kept([*made.unet.parameters(), *made.target.module.parameters()])
    with Autocast(hardware.DTYPES[config.hardware.precision]) as autocast, kept.watching([]):
        _loss = made.loss()
    cast = list(autocast.cast.values())
    return kept.total(without=cast), sum(tensor.nbytes for tensor in cast)


def largest(made: Networks, blocks: list[nn.Module], config: TrainConfig) -> int:
    """Bytes that one of the blocks keeps at most."""
    if not blocks:
        return 0
    kept = Kept([*made.unet.parameters(), *made.target.module.parameters()])
    with Autocast(hardware.DTYPES[config.hardware.precision]), kept.watching(blocks):
        _loss = made.loss()
    return max(kept.blocks.values())
