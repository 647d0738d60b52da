"""The union network against the host's, at the real width of its transformer: the same residuals, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import comfy.supported_models_base
import pytest
import torch
from controlnet_kit.cn_core.files.detect import detect
from controlnet_kit.cn_core.networks.config import UNetConfig
from controlnet_kit.cn_core.networks.union import UnionControlNet
from controlnet_kit.nodes.control import KitControl
from controlnet_kit.nodes.host import host_backend
from controlnet_kit.nodes.sources.network import build_network_source
from random_models import Shape, Tensors, hint_image, host_apply, host_model, prompts, randomise_, sample

# 320 channels, which the host's transformer has whatever the network's width; otherwise as little as possible
CONFIG = UNetConfig(
    channel_mult=(1, 1),
    num_res_blocks=(1, 1),
    transformer_depth=(0, 1),
    context_dim=64,
    adm_in_channels=32,
    use_linear_in_transformer=True,
)


def host_union(tensors: Tensors, config: UNetConfig, dtype: torch.dtype, types: int) -> comfy.cldm.cldm.ControlNet:
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
        num_classes="sequential" if config.adm_in_channels else None,
        adm_in_channels=config.adm_in_channels,
        union_controlnet_num_control_type=types,
        dtype=dtype,
        operations=comfy.ops.manual_cast,
    )
    network.load_state_dict(tensors)
    return network


def random_union(config: UNetConfig, dtype: torch.dtype, types: int) -> UnionControlNet:
    backend = host_backend(comfy.ops.manual_cast, dtype, torch.device("cpu"))
    network = UnionControlNet(config, backend, control_types=types)
    randomise_(network, 1)
    return network


@pytest.mark.parametrize(
    ("dtype", "batch", "rows", "size"),
    [
        (torch.float32, 1, 1, (8, 8)),
        (torch.float32, 2, 1, (17, 15)),
        (torch.float16, 2, 2, (9, 8)),
        (torch.bfloat16, 2, 2, (8, 8)),
    ],
)
@pytest.mark.parametrize(("types", "control_type"), [(6, 3), (8, 7), (8, None)])
def test_residuals(dtype, batch, rows, size, types, control_type):
    ours = random_union(CONFIG, dtype, types)
    host = host_union(ours.state_dict(), CONFIG, dtype, types)
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


@pytest.fixture(scope="module")
def shape() -> Shape:
    """A base of that width which takes no vector y."""
    return Shape(config=replace(CONFIG, adm_in_channels=None), host=comfy.supported_models_base.BASE)


@pytest.mark.parametrize("control_type", [[3], []])
@pytest.mark.parametrize(("batch", "size"), [(1, (8, 8)), (2, (17, 15))])
def test_samples(shape, control_type, batch, size):
    """The type is set as the host's own node sets it, which for "auto" means none."""
    tensors = dict(random_union(shape.config, torch.float32, 6).state_dict())
    detected = detect(tensors)
    assert detected is not None
    ours = KitControl(build_network_source(tensors, detected, name="union.safetensors"))
    cpu = torch.device("cpu")
    host = comfy.controlnet.ControlNet(host_union(tensors, shape.config, torch.float32, 6), load_device=cpu)
    model, image = host_model(shape), hint_image(height=8 * size[0] + 5, width=8 * size[1] - 3)

    def latents(control):
        control.set_extra_arg("control_type", control_type)
        conditionings = host_apply(*prompts(shape), control, image, 0.7)
        return sample(model, *conditionings, batch=batch, size=size)

    assert torch.equal(latents(ours), latents(host))
