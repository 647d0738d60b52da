"""The union network against diffusers' ControlNetUnionModel with the same weights, and why its hints can be cached."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from controlnet_kit.cn_core.control_types import FLUX, XINSIR, index, names
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.files.keymaps import rename
from controlnet_kit.cn_core.files.keymaps.controlnet import controlnet_keys
from controlnet_kit.cn_core.networks.config import UNetConfig
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.layers import timestep_embedding
from controlnet_kit.cn_core.networks.union import SINUSOIDS, UnionControlNet
from torch import nn

TYPES = 8
CONFIG = UNetConfig(
    model_channels=64,
    channel_mult=(1, 2),
    num_res_blocks=(1, 1),
    transformer_depth=(0, 1),
    context_dim=48,
    adm_in_channels=24 + 6 * SINUSOIDS,
    use_linear_in_transformer=True,
)
SIZES = [pytest.param(1, (16, 16), id="one"), pytest.param(2, (17, 15), id="two, odd size")]


def flat(residuals):
    """Down and middle in one list."""
    return [*residuals.down, residuals.mid]


def residuals(network, given, hints, types):
    """One evaluation."""
    with torch.no_grad():
        features, type_embedding = network.encode_hints(hints, types)
        return flat(network(*given.ours, features, given.y, type_embedding))


def diffusers_union() -> nn.Module:
    """The same network there; it writes y's sizes and the types in sinusoids of one width."""
    from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel

    return ControlNetUnionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        block_out_channels=(64, 128),
        layers_per_block=1,
        attention_head_dim=(1, 2),  # their name for the number of heads
        cross_attention_dim=48,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=SINUSOIDS,
        projection_class_embeddings_input_dim=CONFIG.adm_in_channels,
        conditioning_embedding_out_channels=(16, 32, 96, 256),
        num_control_type=TYPES,
        num_trans_channel=64,
        num_proj_channel=64,
    )


@pytest.fixture
def ours(randomise) -> UnionControlNet:
    """Random weights."""
    return randomise(UnionControlNet(CONFIG, control_types=TYPES))


@pytest.fixture
def given(inputs):
    """The function that makes inputs for CONFIG; hints are the same in every row, as for positive and negative."""

    def make(batch=1, size=(16, 16)):
        found = inputs(CONFIG, batch, size)
        time_ids, text = found.added["time_ids"], found.y[:, :24]
        y = torch.cat([text, timestep_embedding(time_ids.flatten(), SINUSOIDS).reshape(batch, -1)], dim=1)
        added = {"time_ids": time_ids, "text_embeds": text}
        return replace(found, y=y, added=added, hint=found.hint[:1].expand(batch, -1, -1, -1))

    return make


def several(hint, count):
    """Different hints."""
    return [hint.roll(step, dims=3) * (0.5 + 0.5 / step) for step in range(1, count + 1)]


@pytest.mark.parametrize("types", [(3,), (0, 1), (7, 2, 5)])
@pytest.mark.parametrize(("batch", "size"), SIZES)
def test_residuals_are_those_of_diffusers(ours, given, assert_same, batch, size, types):
    theirs, given = diffusers_union(), given(batch, size)
    theirs.load_state_dict(rename(ours.state_dict(), controlnet_keys(CONFIG, union=True)))
    hints = several(given.hint, len(types))
    there = torch.zeros(batch, TYPES)
    there[:, list(types)] = 1.0
    with torch.no_grad():
        down, mid = theirs(
            given.x,
            given.timesteps,
            controlnet_cond=hints,
            control_type=there,
            control_type_idx=list(types),
            **given.theirs,
        )
    assert_same(residuals(ours, given, hints, types), [*down, mid])


def test_hints_of_one_row_serve_every_row(ours, given, assert_same):
    given = given(2)
    hints = several(given.hint, 2)
    one = residuals(ours, given, [hint[:1] for hint in hints], (1, 4))
    assert_same(one, residuals(ours, given, hints, (1, 4)))


def test_rows_do_not_depend_on_each_other(ours, given, assert_same):
    """Where diffusers' batch of different hints does, by its attention along the batch."""
    first, second = several(given().hint, 2)
    with torch.no_grad():
        together, _ = ours.encode_hints([torch.cat([first, second])], (2,))
        alone = [ours.encode_hints([hint], (2,))[0] for hint in (first, second)]
    assert_same([together], [torch.cat(alone)])


def test_without_a_type_the_hint_is_encoded_as_by_any_controlnet(ours, given):
    given = given()
    plain = ControlNet(CONFIG)
    plain.load_state_dict(ours.state_dict(), strict=False)
    with torch.no_grad():
        features, type_embedding = ours.encode_hints([given.hint], ())
        assert torch.equal(features, plain.encode_hint(given.hint))
        assert type_embedding.any()  # "no type" is an input that the network was trained with
    assert not torch.equal(residuals(ours, given, [given.hint], ())[-1], residuals(ours, given, [given.hint], (0,))[-1])


def test_each_type_gives_other_residuals(ours, given):
    given = given()
    found = [residuals(ours, given, [given.hint], (number,))[-1] for number in range(TYPES)]
    assert not any(torch.equal(found[a], found[b]) for a, b in product(range(TYPES), repeat=2) if a != b)


@pytest.mark.parametrize(
    ("hints", "types", "message"),
    [
        (2, (), "got 2 hints and 0 types"),
        (1, (0, 1), "got 1 hints and 2 types"),
        (0, (), "got 0 hints and 0 types"),
        (1, (8,), "no type 8; it has 0 to 7"),
        (1, (-1,), "no type -1"),
    ],
)
def test_hints_and_types_that_do_not_fit(ours, given, hints, types, message):
    with pytest.raises(ControlNetKitError, match=message):
        ours.encode_hints([given().hint] * hints, types)


def test_names_of_types():
    assert names("SDXL", 8) == XINSIR and names("SDXL", 6) == XINSIR[:6] and names("SDXL", 0) == ()
    assert names("Flux", 10) == FLUX and len(FLUX) == 7
    assert [
        index(name, "SDXL", 8) for name in ("openpose", "Scribble", "canny/lineart/anime_lineart/mlsd", "tile")
    ] == [*(0, 2, 3, 6)]
    assert index(" pose ", "Flux", 10) == 4


@pytest.mark.parametrize(
    ("name", "family", "count", "message"),
    [
        ("tile", "SDXL", 6, 'no type "tile". Choose one of: openpose, depth, hed/pidi/scribble/ted'),
        ("openpose", "Flux", 10, "Choose one of: canny, tile, depth, blur, pose, gray, lq"),
        ("canny", "SDXL", 0, "not a union file"),
        ("", "SDXL", 8, 'no type ""'),
    ],
)
def test_names_that_a_file_lacks(name, family, count, message):
    with pytest.raises(ControlNetKitError, match=message):
        index(name, family, count)
