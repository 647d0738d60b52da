"""The names of weights: complete, one to one, and the same as diffusers' own converter has them."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.files.keymaps import inverse, rename
from controlnet_kit.cn_core.files.keymaps.controlnet import controlnet_keys
from controlnet_kit.cn_core.files.keymaps.unet import unet_keys
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import SD1, SD2, SDXL, TINY
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.unet import UNet

META = Backend(device="meta")
CONFIGS = pytest.mark.parametrize(
    "config", [pytest.param(c, id=name) for name, c in {"SD1": SD1, "SD2": SD2, "SDXL": SDXL, "TINY": TINY}.items()]
)
NETWORKS = pytest.mark.parametrize(("network", "keys"), [(UNet, unet_keys), (ControlNet, controlnet_keys)])


def shapes(tensors):
    """Names and shapes."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


@CONFIGS
@NETWORKS
def test_every_weight_has_two_names_and_no_name_is_used_twice(config, network, keys):
    names = keys(config)
    assert set(names) == set(network(config, META).state_dict())
    assert len(set(names.values())) == len(names)


@CONFIGS
@NETWORKS
def test_names_and_shapes_are_those_of_diffusers(config, network, keys, diffusers_unet, diffusers_controlnet):
    build = diffusers_unet if network is UNet else diffusers_controlnet
    with torch.device("meta"):
        theirs = build(config).state_dict()
    assert shapes(rename(network(config, META).state_dict(), keys(config))) == shapes(theirs)


@CONFIGS
@NETWORKS
def test_names_are_those_of_diffusers_own_converter(config, network, keys, diffusers_controlnet):
    """Which weight is which, where shapes do not tell: the converter renames a file whose tensors we then recognise."""
    from diffusers.loaders import single_file_utils

    convert = {
        UNet: single_file_utils.convert_ldm_unet_checkpoint,
        ControlNet: single_file_utils.convert_controlnet_checkpoint,
    }[network]
    prefix = "model.diffusion_model." if network is UNet else "control_model."
    with torch.device("meta"):
        settings = dict(diffusers_controlnet(config).config)
    tensors = {key: torch.tensor(number) for number, key in enumerate(keys(config))}
    converted = convert({prefix + key: tensor for key, tensor in tensors.items()}, settings)
    expected = rename(tensors, keys(config))
    if network is ControlNet:  # whose converter forgets the embedding of y; the UNet's has it
        expected = {key: tensor for key, tensor in expected.items() if not key.startswith("add_embedding.")}
    assert {key: tensor.item() for key, tensor in converted.items()} == {k: t.item() for k, t in expected.items()}


@CONFIGS
def test_there_and_back(config):
    names = unet_keys(config)
    tensors = {key: torch.tensor(number) for number, key in enumerate(names)}
    assert rename(rename(tensors, names), inverse(names)) == tensors


def test_unknown_keys_keep_their_names():
    assert list(rename({"strange.weight": torch.zeros(1)}, unet_keys(TINY))) == ["strange.weight"]
