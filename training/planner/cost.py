"""What a step costs, counted without computing it: networks of the real size on the meta device.

Operations are counted by torch's counter (2 for each multiply-add, attention as two matrix products), memory as
`counting` has it. Shapes: B pairs, C h w latent.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...cn_core.networks.backend import Backend
from ...cn_core.networks.unet import UNet
from .. import hardware, objective, quantised
from ..bases.base import Base
from ..config import TrainConfig
from ..data import latent_hints
from ..data.encode import PIXELS, at_once
from ..samples import Batch
from ..targets.make import make_target
from ..targets.target import Target
from .counting import Autocast, Counter, Peak

META = torch.device("meta")
Checkpointing = Literal["none", "one_level", "two_levels", "control", "decoder", "both"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one pair, with one choice of recomputed activations: operations of a run's mean step, memory of its worst."""

    tflop: float
    """Forward and backward, recomputation included."""
    activations: int
    """Bytes that autograd keeps, and those of the largest block that is computed again."""
    casts: int
    """Bytes of weights in the type of the computation, whatever the number of pairs."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """By the base's autoencoder and text encoder, of pairs that no cache keeps."""

    tflop: float = 0.0
    """For one pair."""
    weights: int = 0
    """Bytes of both."""
    workspace: int = 0
    """Bytes for one picture, beside weights and the picture."""
    at_once: int = 1
    """Pictures, at most."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What is counted for a run."""

    choices: Mapping[Checkpointing, Cost]
    """Those that the settings leave open."""
    forward: float
    """TFLOP of a forward pass of one encoded pair, in the run's mean step."""
    base: int
    """Numbers in the frozen UNet."""
    narrow: int
    """Those of the weights that int8 and fp8 make smaller."""
    shapes: Sequence[Sequence[int]]
    """Of the trained tensors."""
    encoding: Encoding
    """In each step; its operations are in `choices`."""

    @property
    def trained(self) -> int:
        """Numbers that are trained."""
        return sum(map(math.prod, self.shapes))

    @property
    def tensor(self) -> int:
        """Those of the largest trained tensor."""
        return max(map(math.prod, self.shapes))


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

    def loss(self, step: int) -> Tensor:
        """The forward pass of a step of the run."""
        self.target.begin(step)
        timesteps = torch.empty(1, dtype=torch.long, device=META)
        prediction = self.target.predict(self.target.module, self.unet, self.batch, self.batch.latents, timesteps)
        return objective.losses(prediction, self.batch.latents).mean()


def networks(config: TrainConfig, base: Base) -> Networks:
    """As the run would make them, with all that is ever trained; float32."""
    unet = UNet(base.unet.config, Backend(device=META)).requires_grad_(False)
    fresh = replace(config.target, init="base", keep_hint_encoder=False)
    target = make_target(replace(base, unet=unet), replace(config, target=fresh))
    target.module.to(META)
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
        latent_hint=torch.empty(1, base.codec.channels, side, side, device=META),
    )


def recomputed(made: Networks, kind: Checkpointing) -> list[nn.Module]:
    """What `hardware` would compute again."""
    parts = ((made.target.module, hardware.CONTROL_LEVELS), (made.unet.output_blocks, hardware.DECODER_LEVELS))
    return [block for part, levels in parts if kind in levels for block in hardware.recomputable(part, levels[kind])]


def phases(config: TrainConfig) -> dict[int, float]:
    """Where the run's steps change -> the share of the steps until the next change."""
    steps, target = config.run.steps, config.target
    begins = sorted({0, *(at for at in (target.reconnect_at, target.unlock_decoder_at) if 0 < at < steps)})
    return {at: (end - at) / steps for at, end in zip(begins, [*begins[1:], steps], strict=True)}


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Of a step with one pair."""

    forward: int
    total: int
    blocks: Mapping[nn.Module, int]
    """Those of the forward pass of each block that can be computed again."""

    def again(self, blocks: Sequence[nn.Module]) -> float:
        """With these computed again."""
        return self.total + sum(self.blocks.get(block, 0) for block in blocks)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """By a step with one pair."""

    counter: Counter
    cast: Sequence[Tensor]

    def bytes(self, again: Sequence[nn.Module]) -> int:
        """With these blocks computed again."""
        return self.counter.kept(again, without=self.cast) + self.counter.largest(again)


def operations(made: Networks, step: int) -> Operations:
    """Counted forward and backward."""
    counted, counter = FlopCounterMode(display=False), Counter(made.parameters(), recomputed(made, "both"))
    with counted, counter.counting(counted):
        loss = made.loss(step)
        forward = counted.get_total_flops()
        loss.backward()
    return Operations(forward=forward, total=counted.get_total_flops(), blocks=dict(counter.flops))


def kept(made: Networks, step: int, dtype: torch.dtype) -> Kept:
    """Counted as autocast to this type has it; the networks are of the types that they have in the run."""
    counter = Counter(made.parameters(), recomputed(made, "both"))
    with Autocast(dtype) as autocast, counter.counting():
        made.loss(step)
    return Kept(counter=counter, cast=list(autocast.cast.values()))


def encoding(config: TrainConfig, base: Base) -> Encoding:
    """Of a pair; nothing where a cache keeps it. Of text encoders only matrix products with weights are counted."""
    if config.data.cached:
        return Encoding()
    codec, picture = copy.deepcopy(base.codec), one_pair(config, base).hint
    modules = [module.to(META) for module in codec.modules()]
    with FlopCounterMode(display=False) as counted:
        codec.encode(picture)
    with Autocast(torch.float32), Peak() as peak:
        codec.encode(picture)
    pictures = 1 if latent_hints.wanted(config.target) == "none" else 2
    linear = [one for module in base.text.modules() for one in module.modules() if isinstance(one, nn.Linear)]
    text = 2 * base.text.tokens * sum(one.weight.numel() for one in linear)
    weights = sum(
        tensor.nbytes for module in (*modules, *base.text.modules()) for tensor in module.state_dict().values()
    )
    return Encoding(
        tflop=(pictures * counted.get_total_flops() + text) / 1e12,
        weights=weights,
        workspace=peak.bytes,
        at_once=at_once((config.data.resolution, config.data.resolution), PIXELS),
    )


def costs(config: TrainConfig, base: Base) -> Costs:
    """Counted on networks of the real size: seconds."""
    wanted = config.hardware.checkpointing
    kinds: tuple[Checkpointing, ...] = get_args(Checkpointing) if wanted == "auto" else (wanted,)
    made, shares, encoded = networks(config, base), phases(config), encoding(config, base)
    steps = {step: operations(made, step) for step in shares}
    lower(made, config)
    memory = [kept(made, step, hardware.DTYPES[config.hardware.precision]) for step in shares]
    choices: dict[Checkpointing, Cost] = {}
    for kind in kinds:
        again = recomputed(made, kind)
        choices[kind] = Cost(
            tflop=sum(share * steps[step].again(again) for step, share in shares.items()) / 1e12 + encoded.tflop,
            activations=max(one.bytes(again) for one in memory),
            casts=max(sum(tensor.nbytes for tensor in one.cast) for one in memory),
        )
    return Costs(
        choices=choices,
        forward=sum(share * steps[step].forward for step, share in shares.items()) / 1e12,
        base=sum(p.numel() for p in made.unet.parameters()),
        narrow=sum(layer.weight.numel() for _, layer in quantised.layers(made.unet)),
        shapes=[p.shape for p in made.target.module.parameters()],
        encoding=encoded,
    )


def lower(made: Networks, config: TrainConfig) -> None:
    """To the types that weights have in the run, in place; those of an 8-bit base in its computation's."""
    kind = hardware.base_dtype(config.hardware)
    made.unet.to(hardware.DTYPES.get(kind, hardware.DTYPES[config.hardware.precision]))
    if config.optimizer.weights == "bf16":
        made.target.module.to(torch.bfloat16)
