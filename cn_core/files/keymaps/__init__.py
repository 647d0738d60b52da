"""Names of the same weights in LDM's and in diffusers' files, generated from a `UNetConfig`.

A map is an ordinary dict from LDM key to diffusers key, complete for its network and in the network's order.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def inverse(names: Mapping[str, str]) -> dict[str, str]:
    """The same map from diffusers key to LDM key."""
    return {diffusers: ldm for ldm, diffusers in names.items()}


def rename(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The same tensors under the names of the other side; a key without one keeps its own, so that loading names it."""
    return {names.get(key, key): tensor for key, tensor in tensors.items()}
