"""Networks that work on the run's device for a while."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Protocol

import torch
from torch import nn


class Network(Protocol):
    """Something with weights."""

    def modules(self) -> tuple[nn.Module, ...]:
        """What may be moved to another device for a while."""
        ...


Lend = Callable[[Network], None]


def put(network: Network, device: torch.device) -> None:
    """Have it on the device from now on."""
    for module in network.modules():
        module.to(device)


@contextmanager
def lending(device: torch.device) -> Generator[Lend]:
    """What this gives puts networks on the device where they are not there yet; at the end they all go back."""
    with ExitStack() as back:

        def lend(network: Network) -> None:
            for module in network.modules():
                home = next(module.parameters()).device
                if home != device:
                    module.to(device)
                    back.callback(module.to, home)

        yield lend
