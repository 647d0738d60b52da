"""ControlNet-LLLites in files: names and shapes."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError
from controlnet_kit.cn_core.files.lllite import is_lllite, read_lllite
from controlnet_kit.cn_core.networks.config import SDXL
from controlnet_kit.cn_core.networks.lllite import LLLite, LLLiteConfig, Place
from random_loras import lllite_tensors


def test_every_familys_modules(narrow):
    tensors = lllite_tensors(narrow)
    detected = read_lllite(tensors)
    assert detected.family == ("SDXL" if narrow.adm_in_channels else "SD 1.x")
    assert LLLite(detected.configs).state_dict().keys() == tensors.keys()
    first = next(place for place in detected.configs if place.projection == "attn1.to_q")
    assert (first.block, first.number) == ("input", 4 if narrow.adm_in_channels else 1)


def test_the_public_files_for_sdxl():
    # input blocks 4, 5 (2 deep), 7, 8 and the middle (10 deep): four projections in each transformer block
    detected = read_lllite(lllite_tensors(SDXL, embedding=32, inner=64))
    assert len(detected.configs) == 4 * (2 * 2 + 2 * 10 + 10)
    place = Place(block="input", number=8, depth=9, projection="attn2.to_q")
    assert detected.configs[place] == LLLiteConfig(width=1280, inner=64, channels=(16, 16, 32), kernels=(4, 4, 2))
    place = Place(block="input", number=4, depth=0, projection="attn1.to_v")
    assert detected.configs[place] == LLLiteConfig(width=640, inner=64, channels=(16, 32), kernels=(4, 4))


def test_output_blocks():
    module = "lllite_unet_output_blocks_2_1_transformer_blocks_0_attn1_to_q"
    source = lllite_tensors(SDXL)
    prefix = "lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    tensors = {key.replace(prefix, module): tensor for key, tensor in source.items() if key.startswith(prefix)}
    (place,) = read_lllite(tensors).configs
    assert (place.block, place.number, place.name) == ("output", 2, module)


def test_other_files():
    assert is_lllite({"lllite_unet_middle_block_1_transformer_blocks_0_attn1_to_q.up.0.weight": torch.zeros(1)})
    assert not is_lllite({"lllite_conditioning1.conv1.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"x has a module lllite_unet_middle_block_0_in_layers_2; this pack runs"):
        read_lllite({"lllite_unet_middle_block_0_in_layers_2.down.0.weight": torch.zeros(1)}, name="x")
    module = "lllite_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
    with pytest.raises(CheckpointError, match=rf"x lacks {module}.conditioning1.0.weight or {module}.down.0.weight"):
        read_lllite({f"{module}.up.0.weight": torch.zeros(1)}, name="x")
