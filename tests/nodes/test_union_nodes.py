"""Union ControlNets through the nodes: types by name, several hints, and what is said when something is missing."""

from __future__ import annotations

import re
from typing import Any

import comfy.model_patcher
import pytest
import torch
from comfy_extras.nodes_controlnet import SetUnionControlNetType
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.networks.union import UnionControlNet
from controlnet_kit.nodes.union import AddControlNetHint, SetControlNetType
from random_models import (
    SHAPES,
    control_tensors,
    controlnet_file,
    hint_image,
    host_apply,
    host_model,
    our_apply,
    our_load,
    prompts,
    randomise_,
    run,
    sample,
)

TINY = SHAPES["tiny"]


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module")
def union() -> Any:
    tensors = dict(randomise_(UnionControlNet(TINY.config, control_types=6), 1).state_dict())
    return our_load(controlnet_file(tensors, "tiny_union.safetensors"))


def typed(control: Any, name: str) -> Any:
    return run(SetControlNetType, control_net=control, type=name)[0]


def test_a_type_by_name_is_the_hosts_by_number(model, union):
    ours = sample(model, *our_apply(*prompts(TINY), typed(union, "canny"), hint_image()))
    host = run(SetUnionControlNetType, control_net=union, type="canny/lineart/anime_lineart/mlsd")[0]
    assert torch.equal(ours, sample(model, *host_apply(*prompts(TINY), host, hint_image())))
    assert not torch.equal(ours, sample(model, *our_apply(*prompts(TINY), typed(union, "depth"), hint_image())))


def test_auto_leaves_it_to_the_network(model, union):
    auto = sample(model, *our_apply(*prompts(TINY), typed(union, "auto"), hint_image()))
    assert torch.equal(auto, sample(model, *host_apply(*prompts(TINY), union, hint_image())))


def test_a_union_without_a_type_is_asked_for_it(union):
    with pytest.raises(ControlNetKitError, match="is a union ControlNet, and nothing says what its hint shows"):
        our_apply(*prompts(TINY), union, hint_image())


def test_a_type_that_the_file_lacks(union):
    with pytest.raises(
        ControlNetKitError, match=re.escape('This ControlNet has no type "tile". Choose one of: openpose')
    ):
        typed(union, "tile")


def test_several_hints_are_fused_in_any_order(model, union):
    def two(first: tuple[str, int], second: tuple[str, int]) -> torch.Tensor:
        control = run(
            AddControlNetHint, control_net=typed(union, first[0]), image=hint_image(seed=second[1]), type=second[0]
        )[0]
        return sample(model, *our_apply(*prompts(TINY), control, hint_image(seed=first[1])))

    both = two(("canny", 50), ("depth", 51))
    torch.testing.assert_close(both, two(("depth", 51), ("canny", 50)), atol=1e-3, rtol=1e-3)
    for name, seed in (("canny", 50), ("depth", 51)):
        single = sample(model, *our_apply(*prompts(TINY), typed(union, name), hint_image(seed=seed)))
        assert not torch.allclose(both, single, atol=1e-2)


def test_a_further_hint_needs_the_first_ones_type(union):
    with pytest.raises(ControlNetKitError, match="the first hint has no type yet"):
        run(AddControlNetHint, control_net=union, image=hint_image(), type="depth")


def test_other_networks_have_no_types():

    plain = our_load(controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors"))
    with pytest.raises(ControlNetKitError, match="It is not a union file"):
        typed(plain, "canny")
