"""Conversions: there and back is where one began, and diffusers builds what its config says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError, FamilyMismatchError
from controlnet_kit.cn_core.files.checkpoint import write
from controlnet_kit.cn_core.files.control_lora import extract, network_tensors
from controlnet_kit.cn_core.files.convert import (
    FOLDER_CONFIG,
    FOLDER_WEIGHTS,
    cast,
    control_lora_file,
    diffusers_config,
    to_diffusers,
    to_ldm,
    transfer,
)
from controlnet_kit.cn_core.files.detect import detect
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import SD1, SD2, SDXL, TINY
from controlnet_kit.cn_core.networks.control_lora import ControlLoRA, LowRank
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.cn_core.networks.union import UnionControlNet

META = Backend(device="meta")
CONFIGS = [pytest.param(c, id=name) for name, c in {"SD1": SD1, "SD2": SD2, "SDXL": SDXL, "TINY": TINY}.items()]


def shapes(tensors):
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def arguments(settings):
    """Of a constructor: all but the class."""
    return {name: value for name, value in settings.items() if name != "_class_name"}


@pytest.mark.parametrize("config", CONFIGS)
def test_diffusers_builds_the_network_of_its_config(config):
    from diffusers.models.controlnets.controlnet import ControlNetModel

    tensors = ControlNet(config, META).state_dict()
    with torch.device("meta"):
        theirs = ControlNetModel(**arguments(diffusers_config(tensors, config)))
    assert shapes(theirs.state_dict()) == shapes(to_diffusers(tensors, config))


@pytest.mark.parametrize("types", [6, 8])
def test_diffusers_builds_union_networks(types):
    from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel

    tensors = UnionControlNet(SDXL, META, control_types=types).state_dict()
    settings = diffusers_config(tensors, SDXL)
    with torch.device("meta"):
        theirs = ControlNetUnionModel(**arguments(settings))
    assert settings["_class_name"] == "ControlNetUnionModel"
    assert shapes(theirs.state_dict()) == shapes(to_diffusers(tensors, SDXL))


def test_a_folder_is_what_diffusers_loads_and_computes_the_same(weights, small, tmp_path):
    from diffusers.models.controlnets.controlnet import ControlNetModel

    write(tmp_path / FOLDER_WEIGHTS, to_diffusers(weights, small), {"format": "pt"})
    (tmp_path / FOLDER_CONFIG).write_text(json.dumps(diffusers_config(weights, small)))
    theirs = ControlNetModel.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    ours = ControlNet(small)
    ours.load_state_dict(weights)
    generator = torch.Generator().manual_seed(1)
    x, hint = torch.randn(2, 4, 8, 8, generator=generator), torch.rand(2, 3, 64, 64, generator=generator)
    context, t = torch.randn(2, 7, small.context_dim, generator=generator), torch.tensor([3.0, 800.0])
    with torch.no_grad():
        residuals = ours(x, t, context, ours.encode_hint(hint))
        down, mid = theirs(x, t, context, hint, return_dict=False)
    for left, right in zip([*residuals.down, residuals.mid], [*down, mid], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def test_layouts_there_and_back_to_the_bit(weights, small):
    weights = {key: tensor.half() for key, tensor in weights.items()}
    theirs = to_diffusers(weights, small)
    assert equal(to_ldm(theirs, small), weights)
    found = detect(theirs)
    assert found is not None and (found.layout, found.config) == ("diffusers", small)
    assert equal(to_diffusers(to_ldm(theirs, small), small), theirs)


def test_weights_without_a_name_in_the_other_layout(weights, small):
    del weights["zero_convs.1.0.weight"]
    with pytest.raises(CheckpointError, match=r"missing: zero_convs.1.0.weight; without a name there: odd.weight"):
        to_diffusers({**weights, "odd.weight": torch.zeros(1)}, small)
    paper = ControlNet(small, META, hint_encoder_kind="paper").state_dict()
    with pytest.raises(CheckpointError, match="released hint encoder"):
        to_diffusers(paper, small)


def test_shapes_that_diffusers_cannot_build():
    config = replace(SD1, transformer_depth_middle=2)
    with pytest.raises(CheckpointError, match=r"2 in the middle. Save it in LDM's layout"):
        diffusers_config(ControlNet(config, META).state_dict(), config)


@pytest.fixture
def bases(randomise, small):
    """Two UNets with different weights."""
    first = {key: tensor.clone() for key, tensor in randomise(UNet(small)).state_dict().items()}
    generator = torch.Generator().manual_seed(9)
    second = {key: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for key, tensor in first.items()}
    return first, second


def test_transfer_moves_copies_as_the_base_moves_and_nothing_else(weights, bases):
    moved = transfer(weights, *bases)
    assert list(moved) == list(weights)
    for key, tensor in moved.items():
        copied = key.startswith(("time_embed.", "input_blocks.", "middle_block."))
        expected = weights[key] + (bases[1][key] - bases[0][key]) if copied else weights[key]
        assert torch.equal(tensor, expected)
        assert copied == (key in bases[0])


def test_transfer_there_and_back(weights, bases):
    back = transfer(transfer(weights, *bases), *reversed(bases))
    assert max(float((back[key] - weights[key]).abs().max()) for key in weights) < 1e-6
    assert equal(transfer(weights, bases[0], bases[0]), weights)


def test_an_untrained_controlnet_becomes_the_new_bases_copy(bases, small):
    copy = {key: bases[0][key] for key in ControlNet(small, META).state_dict() if key in bases[0]}
    moved = transfer(copy, *bases)
    assert all(torch.allclose(moved[key], bases[1][key], atol=1e-6) for key in copy)


def test_transfer_keeps_half_precision_and_adds_in_single(weights, bases):
    half = {key: tensor.half() for key, tensor in weights.items()}
    moved = transfer(half, *bases)
    exact = transfer({key: tensor.float() for key, tensor in half.items()}, *bases)
    assert all(torch.equal(moved[key], exact[key].half()) for key in moved)


def test_transfer_from_an_inpainting_model(weights, bases):
    wide = torch.cat([bases[0]["input_blocks.0.0.weight"], torch.ones(64, 5, 3, 3)], dim=1)
    inpainting = {**bases[0], "input_blocks.0.0.weight": wide}
    assert equal(transfer(weights, inpainting, bases[1]), transfer(weights, *bases))


def test_bases_that_do_not_fit_are_named(weights, bases):
    key = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    other = {**bases[1], key: torch.zeros(128, 77)}
    with pytest.raises(FamilyMismatchError) as caught:
        transfer(weights, bases[0], other, name="edges.safetensors")
    assert str(caught.value) == (
        f"edges.safetensors has {key} of shape (128, 48), and the new base model has one of shape (128, 77). "
        "Both base models have to be of the ControlNet's family."
    )
    with pytest.raises(FamilyMismatchError, match="the old base model has none"):
        transfer(weights, {}, bases[1])


def test_control_loras_come_back_as_their_file_had_them(weights, bases, small):
    file = extract(weights, bases[0], 4).tensors
    network = ControlLoRA(small, network_tensors(file))
    network.load_state_dict(network_tensors(file))
    shapes = {name: layer.shape for name, layer in network.named_modules() if isinstance(layer, LowRank)}
    back = control_lora_file(network.half().state_dict(), shapes)
    assert equal(back, file)
    assert {key: tensor.shape for key, tensor in back.items()} == {key: tensor.shape for key, tensor in file.items()}


def test_cast():
    tensors = {"a": torch.tensor([0.1, 2.0]), "ids": torch.tensor([1, 2])}
    assert {key: tensor.dtype for key, tensor in cast(tensors, torch.bfloat16).items()} == {
        "a": torch.bfloat16,
        "ids": torch.int64,
    }
    assert equal(cast(tensors, None), tensors)
    with pytest.raises(CheckpointError, match=r"a has values too large for torch.float16"):
        cast({"a": torch.tensor([1e6])}, torch.float16)
