"""Control-LoRAs in files: what they are, and the way to whole ControlNets and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError, FamilyMismatchError
from controlnet_kit.cn_core.files.control_lora import (
    MARKER,
    detect_control_lora,
    extract,
    is_control_lora,
    low_rank,
    merge,
)
from controlnet_kit.cn_core.files.detect import detect
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import SD1, SDXL, TINY, UNetConfig
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.unet import UNet
from random_loras import control_lora_shapes, control_lora_tensors


def on_meta(config: UNetConfig):
    """The names and shapes of a file at full width."""
    return {key: torch.empty(shape, device="meta") for key, shape in control_lora_shapes(config, 128).items()}


def test_the_public_files_format():
    tensors = on_meta(SDXL)
    assert len(tensors) == 1228
    assert tuple(tensors["input_blocks.0.0.up"].shape) == (320, 4, 1, 1)
    assert tuple(tensors["input_blocks.0.0.down"].shape) == (4, 4, 3, 3)
    assert tuple(tensors[MARKER].shape) == (0,)
    detected = detect_control_lora(tensors)
    assert detected is not None
    assert (detected.family, detected.config, detected.hint_channels) == ("SDXL", SDXL, 3)
    detected = detect_control_lora(on_meta(SD1))
    assert detected is not None
    assert (detected.family, detected.config) == ("SD 1.x", SD1)


def test_other_files_are_none():
    tensors = control_lora_tensors(TINY)
    assert is_control_lora(tensors)
    assert not is_control_lora(ControlNet(TINY).state_dict())
    assert detect_control_lora(ControlNet(TINY).state_dict()) is None
    assert detect(tensors) is None
    assert detect_control_lora({MARKER: torch.empty(0)}) is None


def models(randomise):
    """A ControlNet that was trained, and the base that it began as."""
    unet = randomise(UNet(TINY))
    controlnet = ControlNet.from_unet(unet)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in controlnet.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return controlnet.state_dict(), unet.state_dict()


def test_full_rank_there_and_back(randomise):
    controlnet, base = models(randomise)
    extracted = extract(controlnet, base, 10_000, dtype=torch.float32)
    assert is_control_lora(extracted.tensors)
    assert max(extracted.errors.values()) < 1e-5
    merged = merge(extracted.tensors, base)
    assert merged.keys() == controlnet.keys()
    for key, tensor in controlnet.items():
        torch.testing.assert_close(merged[key], tensor, rtol=0, atol=1e-5)


def test_the_error_is_that_of_the_best_approximation(randomise):
    controlnet, base = models(randomise)
    extracted = extract(controlnet, base, 8, dtype=torch.float32)
    merged = merge(extracted.tensors, base)
    assert len(extracted.errors) == sum(key.endswith(".up") for key in extracted.tensors)
    for key, error in extracted.errors.items():
        difference = (controlnet[key] - base[key]).flatten(1)
        values = torch.linalg.svdvals(difference)
        best = (values[8:].square().sum() / values.square().sum()).sqrt().item()
        assert error == pytest.approx(best, rel=1e-3, abs=1e-5)
        lost = torch.linalg.norm(merged[key] - controlnet[key]) / torch.linalg.norm(difference)
        assert lost.item() == pytest.approx(error, rel=1e-3, abs=1e-4)
    halves = extract(controlnet, base, 8)
    assert {t.dtype for key, t in halves.tensors.items() if key != MARKER} == {torch.float16}
    assert halves.errors == pytest.approx(extracted.errors, abs=2e-3)


def test_weights_that_never_moved():
    unet = UNet(TINY)
    extracted = extract(ControlNet.from_unet(unet).state_dict(), unet.state_dict(), 4)
    assert set(extracted.errors.values()) == {0.0}


@pytest.mark.parametrize("shape", [(7, 40), (40, 7), (9, 9), (1, 5)])
def test_low_rank_of_any_shape(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    for rank in (1, 3, 50):
        up, down = low_rank(matrix, rank)
        assert up.shape == (shape[0], min(rank, *shape))
        u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
        torch.testing.assert_close(up @ down, (u[:, :rank] * s[:rank]) @ v[:rank])


def test_merging_leaves_its_arguments_alone_and_keeps_dtypes(randomise):
    base = {key: tensor.half() for key, tensor in randomise(UNet(TINY)).state_dict().items()}
    tensors = control_lora_tensors(TINY)
    del tensors["input_blocks.1.0.in_layers.0.weight"]
    before = {key: tensor.clone() for key, tensor in base.items()}
    merged = merge(tensors, base)
    assert all(torch.equal(base[key], tensor) for key, tensor in before.items())
    assert merged["time_embed.0.weight"].dtype == torch.float16
    assert merged["zero_convs.0.0.weight"] is tensors["zero_convs.0.0.weight"]
    assert merged["input_blocks.1.0.in_layers.0.weight"] is base["input_blocks.1.0.in_layers.0.weight"]
    assert merged.keys() == ControlNet(TINY, Backend(device="meta")).state_dict().keys()


def test_an_inpainting_base(randomise):
    base = randomise(UNet(replace(TINY, in_channels=9))).state_dict()
    merged = merge(control_lora_tensors(TINY), base)
    assert tuple(merged["input_blocks.0.0.weight"].shape) == (64, 4, 3, 3)
    extracted = extract(merged, base, 4, dtype=torch.float32)
    assert tuple(extracted.tensors["input_blocks.0.0.down"].shape) == (4, 4, 3, 3)


def test_bad_input():
    tensors, base = control_lora_tensors(TINY), UNet(TINY, Backend(device="meta")).state_dict()
    message = r"x changes time_embed.0.weight of shape \(256, 64\), and the base model has "
    with pytest.raises(FamilyMismatchError, match=message + "none"):
        merge(tensors, {}, name="x")
    with pytest.raises(FamilyMismatchError, match=message + r"one of shape \(1, 2\)"):
        merge(tensors, {**base, "time_embed.0.weight": torch.empty(1, 2)}, name="x")
    with pytest.raises(FamilyMismatchError, match=message + "none"):
        extract(ControlNet(TINY).state_dict(), {}, 4, name="x")
    with pytest.raises(ControlNetKitError, match="needs a rank of at least 1, got 0"):
        extract({}, {}, 0)
