"""CtrLoRA's files: base and LoRA told apart, and joined."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError, FamilyMismatchError
from controlnet_kit.cn_core.files.control_lora import is_control_lora
from controlnet_kit.cn_core.files.ctrlora import (
    apply,
    base_tensors,
    detect_ctrlora_base,
    is_ctrlora,
    is_ctrlora_base,
)
from controlnet_kit.cn_core.files.detect import detect
from controlnet_kit.cn_core.networks.config import TINY
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.latent_controlnet import LatentControlNet
from random_loras import controlnet_shapes, ctrlora_base_tensors, ctrlora_tensors


def without_prefix(tensors):
    return {key.removeprefix("control_model."): tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize("form", [dict, without_prefix])
def test_which_is_which(form):
    base, lora = form(ctrlora_base_tensors(TINY)), form(ctrlora_tensors(TINY))
    assert (is_ctrlora(lora), is_ctrlora_base(lora)) == (True, False)
    released = {**base, **{key: tensor for key, tensor in lora.items() if "lora_layer" in key}}
    for tensors in (base, released):
        assert (is_ctrlora(tensors), is_ctrlora_base(tensors)) == (False, True)
        detected = detect_ctrlora_base(tensors)
        assert detected is not None
        assert (detected.config, detected.hint_channels) == (TINY, 4)
        assert base_tensors(tensors).keys() == LatentControlNet(TINY).state_dict().keys()
    ordinary = ControlNet(TINY).state_dict()
    assert not is_ctrlora(ordinary)
    assert not is_ctrlora_base(ordinary)
    assert detect_ctrlora_base(ordinary) is None
    assert not is_control_lora(lora)
    assert detect(lora) is None
    assert detect(base) is None


def test_a_training_checkpoint():
    base = ctrlora_base_tensors(TINY)
    more = {"model.diffusion_model.time_embed.0.weight", "control_model.loras_dict.canny.0.down.weight"}
    assert base_tensors({**base, **{key: torch.zeros(1) for key in more}}).keys() == without_prefix(base).keys()


@pytest.mark.parametrize("form", [dict, without_prefix])
def test_applied(form):
    base, lora = ctrlora_base_tensors(TINY), ctrlora_tensors(TINY)
    before = {key: tensor.clone() for key, tensor in base.items()}
    applied = apply(form(base), form(lora))
    assert all(torch.equal(base[key], tensor) for key, tensor in before.items())
    assert set(applied) == {key for key in controlnet_shapes(TINY) if not key.startswith("input_hint_block.")}
    bare, changes = without_prefix(base), without_prefix(lora)
    for key, tensor in applied.items():
        name = key.removesuffix(".weight")
        if (up := changes.get(f"{name}.lora_layer.up.weight")) is not None:
            expected = bare[key] + up @ changes[f"{name}.lora_layer.down.weight"]
        else:
            expected = changes.get(key, bare[key])
        torch.testing.assert_close(tensor, expected)
    assert not torch.equal(applied["time_embed.0.weight"], bare["time_embed.0.weight"])
    assert torch.equal(applied["middle_block_out.0.bias"], changes["middle_block_out.0.bias"])
    assert torch.equal(applied["input_blocks.1.0.in_layers.2.weight"], bare["input_blocks.1.0.in_layers.2.weight"])


def test_the_bases_dtype():
    base = {key: tensor.half() for key, tensor in ctrlora_base_tensors(TINY).items()}
    assert {tensor.dtype for tensor in apply(base, ctrlora_tensors(TINY)).values()} == {torch.float16}


def test_a_base_that_is_missing_or_none():
    lora = ctrlora_tensors(TINY)
    with pytest.raises(CheckpointError, match=r"x is a CtrLoRA, .*, and its base is none\. Load the base"):
        apply(None, lora, name="x")
    for other in (ControlNet(TINY).state_dict(), {}):
        with pytest.raises(CheckpointError, match="its base is a ControlNet of another kind, or something else"):
            apply(other, lora)


def test_what_does_not_fit():
    base, lora, key = ctrlora_base_tensors(TINY), ctrlora_tensors(TINY), "control_model.time_embed.0"
    narrow = {**lora, f"{key}.lora_layer.up.weight": torch.zeros(8, 4)}
    message = r"x changes time_embed.0.weight of shape \(8, 64\), and the base ControlNet has one of shape \(256, 64\)"
    with pytest.raises(FamilyMismatchError, match=message):
        apply(base, narrow, name="x")
    with pytest.raises(
        FamilyMismatchError, match=r"zero_convs.99.0.bias of shape \(3,\), and the base ControlNet has none"
    ):
        apply(base, {**lora, "control_model.zero_convs.99.0.bias": torch.zeros(3)})
    del lora[f"{key}.lora_layer.up.weight"]
    with pytest.raises(CheckpointError, match=r"x has no up that fits its down for time_embed.0.weight"):
        apply(base, lora, name="x")
