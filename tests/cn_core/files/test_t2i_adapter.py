"""Which T2I-Adapter is in a file; full-size ones lie on the meta device."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError
from controlnet_kit.cn_core.files.checkpoint import check_strictly
from controlnet_kit.cn_core.files.detect import describe_foreign, detect
from controlnet_kit.cn_core.files.t2i_adapter import detect_t2i_adapter
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig
from random_adapters import NARROW

META = Backend(device="meta")
PUBLIC = {
    "canny, sketch and pose for SD 1.x": (T2IAdapterConfig(), "SD 1.x"),
    "sketch for SD 1.x": (T2IAdapterConfig(hint_channels=1), "SD 1.x"),
    "colour": (T2IAdapterConfig(kind="light", blocks=4), "SD 1.x"),
    "SDXL": (T2IAdapterConfig(unshuffle=16), "SDXL"),
    "SDXL, grey": (T2IAdapterConfig(unshuffle=16, hint_channels=1), "SDXL"),
}


def shapes(tensors):
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_shapes(name):
    config, family = PUBLIC[name]
    tensors = T2IAdapter(config, META).state_dict()
    found = detect_t2i_adapter(tensors)
    assert found is not None
    assert (found.config, found.family, found.tensors) == (config, family, tensors)
    assert detect(tensors) is None


@pytest.mark.parametrize("name", ["sketch for SD 1.x", "colour", "SDXL"])
def test_diffusers_files_have_the_same_weights(name):
    from diffusers.models.adapter import T2IAdapter as Theirs

    config, family = PUBLIC[name]
    kind = "light_adapter" if config.kind == "light" else "full_adapter_xl" if config.xl else "full_adapter"
    channels = list(config.channels[:3] if config.kind == "light" else config.channels)
    with torch.device("meta"):
        theirs = Theirs(config.hint_channels, channels, config.blocks, config.unshuffle, kind).state_dict()
    found = detect_t2i_adapter(theirs)
    assert found is not None and (found.config, found.family) == (config, family)
    assert shapes(found.tensors) == shapes(T2IAdapter(config, META).state_dict())
    assert describe_foreign(theirs) == "a T2I-Adapter"


@pytest.mark.parametrize("name", NARROW)
def test_narrow_ones(name):
    found = detect_t2i_adapter(T2IAdapter(NARROW[name], META).state_dict())
    assert found is not None and found.config == NARROW[name]


@pytest.mark.parametrize(
    ("changed", "shape"),
    [
        ("conv_in.weight", (32,)),
        ("conv_in.weight", (32, 320, 3, 3)),
        ("body.0.in_conv.weight", (32, 32, 1, 1)),
        ("body.0.block2.weight", (32,)),
        ("body.8.block1.weight", (64, 64, 3, 3)),
    ],
)
def test_shapes_that_no_adapter_has(changed, shape):
    tensors = T2IAdapter(NARROW["full"], META).state_dict()
    assert detect_t2i_adapter({**tensors, changed: torch.empty(shape, device="meta")}) is None


@pytest.mark.parametrize("left_out", ["conv_in.weight", "body.0.block1.weight", "body.5.block1.weight"])
def test_files_that_lack_what_detection_needs(left_out):
    tensors = T2IAdapter(NARROW["full"], META).state_dict()
    del tensors[left_out]
    assert detect_t2i_adapter(tensors) is None


def test_other_files():
    assert detect_t2i_adapter({}) is None
    assert detect_t2i_adapter({f"body.{'9' * 5000}.resnets.0.block1.weight": torch.empty(1)}) is None


def test_what_detection_does_not_need_is_compared_strictly():
    tensors = T2IAdapter(NARROW["full"], META).state_dict()
    del tensors["body.7.block2.bias"]
    found = detect_t2i_adapter({**tensors, "body.3.skep.weight": torch.empty(1, device="meta")})
    assert found is not None
    with pytest.raises(CheckpointError, match=r"missing: body.7.block2.bias; unexpected: body.3.skep.weight"):
        check_strictly(T2IAdapter(found.config, META), found.tensors, name="damaged")
