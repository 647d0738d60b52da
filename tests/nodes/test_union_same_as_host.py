"""The union network against the host's, at the real width of its transformer: the same residuals, bit for bit."""

from __future__ import annotations

from functools import partial

import comfy.cldm.cldm
import comfy.ops
import pytest
import torch
from controlnet_kit.cn_core.networks.config import UNetConfig
from controlnet_kit.cn_core.networks.union import UnionControlNet
from controlnet_kit.nodes.host import host_backend
from random_models import randomise_
from torch import Tensor

# 320 channels, which the host's transformer has whatever the network's width; otherwise as little as possible
CONFIG = UNetConfig(
    channel_mult=(1, 1),
    num_res_blocks=(1, 1),
    transformer_depth=(0, 1),
    context_dim=64,
    adm_in_channels=32,
    use_linear_in_transformer=True,
)


def host_union(tensors: dict[str, Tensor], dtype: torch.dtype, types: int) -> comfy.cldm.cldm.ControlNet:
    network = comfy.cldm.cldm.ControlNet(
        image_size=32,
        in_channels=4,
        model_channels=320,
        hint_channels=3,
        num_res_blocks=[1, 1],
        channel_mult=(1, 1),
        transformer_depth=[0, 1],  # pyright: ignore[reportArgumentType]
        transformer_depth_middle=1,
        context_dim=64,
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        legacy=False,
        num_head_channels=64,
        num_classes="sequential",
        adm_in_channels=32,
        union_controlnet_num_control_type=types,
        dtype=dtype,
        operations=comfy.ops.manual_cast,
    )
    network.load_state_dict(tensors)
    return network


def random_union(types: int, dtype: torch.dtype = torch.float32) -> UnionControlNet:
    backend = host_backend(comfy.ops.manual_cast, dtype, torch.device("cpu"))
    network = UnionControlNet(CONFIG, backend, control_types=types)
    randomise_(network, 1)
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("batch", "rows", "size"), [(1, 1, (8, 8)), (2, 1, (17, 15)), (2, 2, (9, 8))])
@pytest.mark.parametrize(("types", "control_type"), [(6, 3), (8, 7), (8, None)])
def test_residuals(dtype, batch, rows, size, types, control_type):
    ours = random_union(types, dtype)
    host = host_union(ours.state_dict(), dtype, types)
    random = partial(torch.randn, generator=torch.Generator().manual_seed(5))
    x, timesteps = random(batch, 4, *size), torch.tensor([700.0] * batch)
    context, y = random(batch, 7, 64), random(batch, 32)
    hint = torch.rand(rows, 3, 8 * size[0], 8 * size[1], generator=torch.Generator().manual_seed(6))
    control_types = () if control_type is None else (control_type,)
    with torch.inference_mode():
        features, type_embedding = ours.encode_hints([hint], control_types)
        found = ours(x, timesteps, context, features, y, type_embedding)
        expected = host(x, hint, timesteps, context, y, control_type=list(control_types))
    assert torch.equal(found.mid, expected["middle"][0])
    assert all(torch.equal(a, b) for a, b in zip(found.down, expected["output"], strict=True))
