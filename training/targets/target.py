"""`Target`: the trainable part of a run.

Shapes: B batch, C h w latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from ...cn_core.networks.unet import UNet
from ..samples import Batch


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters with a learning rate of their own."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    learning_rate: float
    """At its highest; the schedule multiplies it."""


class Target(Protocol):
    """One kind of network that learns to follow hints."""

    @property
    def module(self) -> nn.Module:
        """All that is trained, and nothing else; its forward pass is what accelerate wraps."""
        ...

    def begin(self, step: int) -> None:
        """Called before step `step` (from 0) and after a resume: sets what depends on the step, such as links."""
        ...

    def predict(self, module: nn.Module, unet: UNet, batch: Batch, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """eps or v (B C h w) of the base with the control; `module` is `self.module`, maybe wrapped.

        The base's encoder runs without gradients, and that is asserted.
        """
        ...

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        """All trainable parameters, each once."""
        ...

    def tensors(self, weights: Mapping[str, Tensor], /) -> dict[str, Tensor]:
        """The file's tensors (LDM's keys), from weights (or their average) named as in `module.state_dict()`."""
        ...

    def extra_files(self, weights: Mapping[str, Tensor], done: int, /) -> Mapping[str, Mapping[str, Tensor]]:
        """Further files that the first needs after `done` steps: suffix of the name -> tensors.

        The decoder once it was trained, as a rule nothing.
        """
        ...
