"""ControlNet-LLLite's modules, number by number; how they act in a model is tested with the host's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from controlnet_kit.cn_core.networks.lllite import LLLite, LLLiteConfig, Place

PLACE = Place(block="input", number=4, depth=1, projection="attn1.to_k")
MIDDLE = Place(block="middle", number=0, depth=0, projection="attn2.to_q")
CONFIG = LLLiteConfig(width=32, inner=5, channels=(4, 8), kernels=(4, 4))


def test_names():
    assert PLACE.key == "input_blocks.4.1.transformer_blocks.1.attn1.to_k"
    assert PLACE.name == "lllite_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_k"
    assert MIDDLE.name == "lllite_unet_middle_block_1_transformer_blocks_0_attn2_to_q"
    keys = LLLite({PLACE: CONFIG}).state_dict().keys()
    layers = ("conditioning1.0", "conditioning1.2", "down.0", "mid.0", "up.0")
    assert list(keys) == [f"{PLACE.name}.{layer}.{part}" for layer in layers for part in ("weight", "bias")]


@torch.inference_mode()
def test_the_formula(randomise):
    network, x, hint = randomise(LLLite({PLACE: CONFIG})), torch.randn(2, 6, 32), torch.rand(1, 3, 32, 48)
    weights = {key.removeprefix(f"{PLACE.name}."): tensor for key, tensor in network.state_dict().items()}

    def of(layer: str) -> tuple[torch.Tensor, torch.Tensor]:
        return weights[f"{layer}.weight"], weights[f"{layer}.bias"]

    # hints are trained on in [-1, 1]
    embedding = F.conv2d(
        F.conv2d(2 * hint - 1, *of("conditioning1.0"), stride=4).relu(), *of("conditioning1.2"), stride=4
    )
    tokens = embedding.flatten(2).transpose(1, 2).repeat(2, 1, 1)
    both = torch.cat([tokens, F.linear(x, *of("down.0")).relu()], dim=2)
    expected = F.linear(F.linear(both, *of("mid.0")).relu(), *of("up.0"))
    (found,) = network.encode(hint)
    torch.testing.assert_close(found, embedding)
    torch.testing.assert_close(network(PLACE, x, found, (2, 3)), expected)


def test_a_new_module_changes_nothing(randomise):
    network, x = randomise(LLLite({PLACE: CONFIG})), torch.randn(1, 4, 32)
    for parameter in network.get_submodule(f"{PLACE.name}.up").parameters():
        torch.nn.init.zeros_(parameter)
    assert not network(PLACE, x, network.encode(torch.rand(1, 3, 32, 32))[0], (2, 2)).any()


@pytest.mark.parametrize("latent", [(8, 8), (17, 15), (9, 10), (65, 63)])
@pytest.mark.parametrize(("kernels", "level"), [((4, 2), 0), ((4, 4), 1), ((4, 4, 2), 2)])
def test_odd_sizes_have_the_models_tokens(latent, kernels, level):
    config = LLLiteConfig(width=32, inner=5, channels=(2,) * len(kernels), kernels=kernels)
    (embedding,) = LLLite({PLACE: config}).encode(torch.rand(1, 3, 8 * latent[0], 8 * latent[1]))
    assert tuple(embedding.shape[2:]) == tuple(-(-side // 2**level) for side in latent)


def test_another_grid_of_tokens(randomise):
    network = randomise(LLLite({PLACE: CONFIG}))
    (embedding,) = network.encode(torch.rand(1, 3, 64, 64))
    assert network(PLACE, torch.randn(1, 12, 32), embedding, (3, 4)).shape == (1, 12, 32)
    uniform = embedding.new_ones(embedding.shape)
    x = torch.randn(1, 4, 32)
    torch.testing.assert_close(
        network(PLACE, x, uniform, (2, 2)), network(PLACE, x, uniform[:, :, :2, :2].contiguous(), (2, 2))
    )
