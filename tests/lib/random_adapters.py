"""T2I-Adapters with random weights: small ones, and those of the public files' shapes."""

from __future__ import annotations

import torch
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig
from torch import Tensor

NARROW = {
    "full": T2IAdapterConfig(channels=(32, 64, 128, 128)),
    "one channel": T2IAdapterConfig(channels=(32, 64, 128, 128), hint_channels=1),
    "with convolutions": T2IAdapterConfig(channels=(32, 64, 128, 128), kernel=3, downsample_with_conv=True),
    "light": T2IAdapterConfig(kind="light", channels=(32, 64, 128, 128), blocks=4),
    "XL": T2IAdapterConfig(channels=(32, 64, 128, 128), unshuffle=16),
    "XL, one channel": T2IAdapterConfig(channels=(32, 64, 128, 128), unshuffle=16, hint_channels=1),
}


def adapter_tensors(config: T2IAdapterConfig, seed: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Weights that keep the variance, under TencentARC's keys."""
    generator, empty = torch.Generator().manual_seed(seed), T2IAdapter(config, Backend(device="meta")).state_dict()

    def random(shape: torch.Size) -> Tensor:
        scale = 0.1 if len(shape) == 1 else shape[1:].numel() ** -0.5
        return (scale * torch.randn(shape, generator=generator)).to(dtype)

    return {key: random(tensor.shape) for key, tensor in empty.items()}
