"""Inputs for a UNet or ControlNet, as we and as diffusers take them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.networks.config import UNetConfig
from controlnet_kit.cn_core.networks.layers import timestep_embedding
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """One call of a network."""

    x: Tensor
    timesteps: Tensor
    context: Tensor
    y: Tensor | None
    hint: Tensor
    added: dict[str, Tensor] | None
    """y before diffusers embeds and joins it."""

    @property
    def ours(self) -> tuple[Tensor, Tensor, Tensor]:
        """Our leading arguments."""
        return self.x, self.timesteps, self.context

    @property
    def theirs(self) -> dict[str, Any]:
        """The same for diffusers, less x and the timesteps."""
        return {"encoder_hidden_states": self.context, "added_cond_kwargs": self.added, "return_dict": False}


def make(config: UNetConfig, batch: int = 1, size: tuple[int, int] = (16, 16)) -> Inputs:
    """Random inputs; latents are of `size`, hints of eight times that."""
    generator = torch.Generator().manual_seed(batch)
    height, width = size
    y, added = None, None
    if config.adm_in_channels is not None:
        time_ids = torch.randint(0, 1024, (batch, 6), generator=generator).float()
        text = torch.randn(batch, config.adm_in_channels - 6 * 8, generator=generator)
        added = {"text_embeds": text, "time_ids": time_ids}
        y = torch.cat([text, timestep_embedding(time_ids.flatten(), 8).reshape(batch, -1)], dim=1)
    return Inputs(
        x=torch.randn(batch, config.in_channels, height, width, generator=generator),
        timesteps=torch.randint(0, 1000, (batch,), generator=generator),
        context=torch.randn(batch, 7, config.context_dim, generator=generator),
        y=y,
        hint=torch.rand(batch, 3, 8 * height, 8 * width, generator=generator),
        added=added,
    )


@pytest.fixture
def inputs() -> Callable[..., Inputs]:
    """The function that makes inputs for a configuration."""
    return make


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.fixture
def assert_same() -> Callable[[Iterable[Tensor], Iterable[Tensor]], None]:
    """The function that holds two lists of tensors to a relative difference of 1e-5."""

    def check(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> None:
        errors = [relative_error(a, b) for a, b in zip(ours, theirs, strict=True)]
        assert max(errors) <= 1e-5, errors

    return check


@pytest.fixture
def gradients() -> Callable[[nn.Module, Iterable[Tensor]], dict[str, Tensor]]:
    """The function that sends the same random gradient into outputs and collects what reaches the parameters."""

    def backward(module: nn.Module, outputs: Iterable[Tensor]) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(3)
        outputs = list(outputs)
        loss = torch.stack([(o * torch.randn(o.shape, generator=generator)).mean() for o in outputs]).sum()
        names, parameters = zip(*module.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))

    return backward
