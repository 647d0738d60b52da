"""A Control-LoRA over a UNet against the whole ControlNet that the two make, and what happens without a UNet."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from controlnet_kit.cn_core.errors import FamilyMismatchError
from controlnet_kit.cn_core.files.checkpoint import load_strictly
from controlnet_kit.cn_core.files.control_lora import merge, network_tensors
from controlnet_kit.cn_core.networks.config import TINY
from controlnet_kit.cn_core.networks.control_lora import Borrowed, ControlLoRA, LowRank
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.unet import UNet
from random_loras import control_lora_tensors


def control_lora(config, tensors) -> ControlLoRA:
    tensors = network_tensors(tensors)
    network = ControlLoRA(config, tensors)
    load_strictly(network, tensors, name="lora")
    return network


def whole(config, tensors, unet) -> ControlNet:
    network = ControlNet(config)
    load_strictly(network, merge(tensors, unet.state_dict()), name="merged")
    return network


def assert_equal(ours, expected):
    assert torch.equal(ours.mid, expected.mid)
    assert all(torch.equal(a, b) for a, b in zip(ours.down, expected.down, strict=True))


@torch.inference_mode()
def test_equals_the_merged_controlnet(narrow, randomise, inputs):
    unet, tensors, given = randomise(UNet(narrow)), control_lora_tensors(narrow), inputs(narrow, 2, (16, 8))
    ours, expected = control_lora(narrow, tensors), whole(narrow, tensors, unet)
    ours.bind(unet)
    features = ours.encode_hint(given.hint)
    assert torch.equal(features, expected.encode_hint(given.hint))
    assert_equal(ours(*given.ours, features, given.y), expected(*given.ours, features, given.y))


@torch.inference_mode()
def test_the_first_channels_of_an_inpainting_unet(randomise, inputs):
    unet, tensors, given = randomise(UNet(replace(TINY, in_channels=9))), control_lora_tensors(TINY), inputs(TINY)
    ours, expected = control_lora(TINY, tensors), whole(TINY, tensors, unet)
    ours.bind(unet)
    features = ours.encode_hint(given.hint)
    assert_equal(ours(*given.ours, features), expected(*given.ours, features))


def test_what_is_low_rank_borrowed_and_own(randomise):
    tensors = control_lora_tensors(TINY, rank=3)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("input_blocks.1.0.in_layers.0.")}
    network = control_lora(TINY, tensors)
    low = {key: layer for key, layer in network.named_modules() if isinstance(layer, LowRank)}
    assert low.keys() == {key.removesuffix(".up") for key in tensors if key.endswith(".up")}
    assert type(network.get_submodule("input_blocks.1.0.in_layers.0")) is Borrowed
    assert tuple(low["input_blocks.0.0"].down.get_parameter("weight").shape) == (3, 4 * 3 * 3)
    unet = randomise(UNet(TINY))
    before = network.state_dict().keys()
    network.bind(unet)
    assert network.state_dict().keys() == before
    assert low["time_embed.2"].base is unet.time_embed[2]


@torch.inference_mode()
def test_follows_what_is_done_to_the_unet(randomise, inputs):
    unet, tensors, given = randomise(UNet(TINY)), control_lora_tensors(TINY), inputs(TINY)
    network = control_lora(TINY, tensors)
    network.bind(unet)
    features = network.encode_hint(given.hint)
    for parameter in unet.parameters():
        parameter.mul_(0.5)
    assert_equal(network(*given.ours, features), whole(TINY, tensors, unet)(*given.ours, features))


def test_without_a_unet(randomise, inputs):
    network, given = control_lora(TINY, control_lora_tensors(TINY)), inputs(TINY)
    with pytest.raises(RuntimeError, match="bind it to a model"):
        network(*given.ours, torch.zeros(1))
    unet = randomise(UNet(TINY))
    network.bind(unet)
    del unet
    with pytest.raises(RuntimeError, match="bind it to a model"):
        network(*given.ours, torch.zeros(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_channels": 32}, r"x changes time_embed.0.weight of shape \(256, 64\), and the model has one of shape"),
        ({"in_channels": 3}, r"input_blocks.0.0.weight of shape \(64, 4, 3, 3\), .* one of shape \(64, 3, 3, 3\)"),
        ({"num_res_blocks": (1, 1)}, r"input_blocks.2.0.\S+ of shape \S+ .*, and the model has none\. Use it with"),
    ],
)
def test_a_unet_of_another_shape(changes, message):
    network = control_lora(TINY, control_lora_tensors(TINY))
    with pytest.raises(FamilyMismatchError, match=message):
        network.bind(UNet(replace(TINY, **changes)), name="x")
