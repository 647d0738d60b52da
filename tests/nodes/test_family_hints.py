"""Hints for the host's families: encoded once, of a type, cut for areas, masked, resized."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from comfy_extras.nodes_controlnet import ControlNetInpaintingAliMamaApply
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.nodes.areas import KEY, Areas
from controlnet_kit.nodes.cache import CachingEncoder, HintCache
from controlnet_kit.nodes.control import as_kit
from controlnet_kit.nodes.union import AddControlNetHint, SetControlNetType
from host_family import Controls, Family, StandInVAE, assert_equal, flat
from random_families import FAMILIES
from random_models import hint_image, run
from random_patches import picture_vae, video_vae
from torch import Tensor

LATENT = ("SD3", "SD3.5 canny", "SD3.5 depth", "Flux AliMama", "Qwen Fun", "Qwen inpaint", "HunyuanDiT")


@pytest.fixture(params=LATENT)
def latent(request: pytest.FixtureRequest) -> Family:
    """A family whose hint is a latent."""
    return FAMILIES[request.param]()


def given(family: Family) -> list[Tensor]:
    """What the VAE has been given, and forgets."""
    assert family.vae is not None
    pictures, family.vae.given = family.vae.given, []
    return pictures


def test_a_hint_is_encoded_once_over_queue_runs(latent):
    image, other = hint_image(height=128, width=128), hint_image(seed=9)
    controlled = latent.controlled(image)
    for _ in range(3):
        latent.sampled(controlled)
    ours = given(latent)
    for _ in range(3):
        latent.sampled(latent.host_controlled(image))
    host = given(latent)
    assert (len(ours), len(host)) == (1, 3)
    assert torch.equal(ours[0], host[0])  # what the family does to pixels before the VAE is done as well
    latent.sampled(controlled, size=(6, 8))
    assert [picture.shape[1:3] for picture in given(latent)] == [(48, 64)]
    latent.sampled(controlled)
    assert given(latent) == []
    latent.sampled(latent.controlled(other))
    assert len(given(latent)) == 1


def test_each_picture_of_a_batch_is_encoded_once():
    family = FAMILIES["Qwen InstantX"]()
    found = flat(family.asked(family.controlled(hint_image(2)), batch=2))
    assert [len(picture) for picture in given(family)] == [1, 1]
    for index in range(2):
        alone = flat(family.asked(family.controlled(hint_image(2)[index : index + 1]), batch=2))
        rows = [index, 2 + index]
        assert all(torch.allclose(a[rows], b[rows], atol=1e-4) for a, b in zip(found, alone, strict=True))


def test_a_caching_vae_is_the_vae():
    vae = StandInVAE(16)
    encoder = CachingEncoder(vae, HintCache())
    assert (encoder.spacial_compression_encode(), encoder.mix is vae.mix) == (8, True)
    with pytest.raises(AttributeError, match="downscale_ratio"):
        _ = encoder.downscale_ratio


def test_a_missing_vae_is_said_before_the_first_step(latent):
    with pytest.raises(ControlNetKitError, match="takes its hint as a latent: connect the `vae`"):
        latent.controlled(hint_image(), vae=None)
    control = as_kit(latent.controls.ours).set_cond_hint(hint_image().movedim(-1, 1))
    positive = [[latent.base.prompts[0][0][0], {**latent.base.prompts[0][0][1], "control": control}]]
    steps: list[int] = []
    handle = latent.base.model.model.diffusion_model.register_forward_pre_hook(lambda *_: steps.append(1))
    with pytest.raises(ControlNetKitError, match="takes its hint as a latent: connect the `vae`"):
        latent.sampled((positive, latent.base.prompts[1]))
    handle.remove()
    assert steps == []


@pytest.mark.parametrize(("name", "number"), [("canny", 0), ("depth", 2), ("pose", 4)])
def test_types_of_flux_unions(name, number):
    family = FAMILIES["Flux Union"]()
    control = run(SetControlNetType, control_net=family.controls.ours, type=name)[0]
    ours = replace(family, controls=Controls(host=family.controls.host, ours=control))
    family.controls.host.set_extra_arg("control_type", [number])
    assert_equal(ours.asked(ours.controlled(hint_image())), family.asked(family.host_controlled(hint_image())))


def test_types_that_flux_does_not_have():
    control = FAMILIES["Flux Union"]().controls.ours
    with pytest.raises(
        ControlNetKitError, match=r'has no type "openpose"\. Choose one of: canny, tile, depth, blur, p'
    ):
        run(SetControlNetType, control_net=control, type="openpose")
    family = FAMILIES["Flux Union"]()
    two = run(AddControlNetHint, control_net=family.controls.ours, image=hint_image(seed=8), type="depth")[0]
    ours = replace(family, controls=Controls(host=family.controls.host, ours=two))
    with pytest.raises(ControlNetKitError, match=re.escape("ComfyUI runs union.safetensors, with one hint; it got 2")):
        ours.asked(ours.controlled(hint_image()))


def whole_and_part() -> tuple[Tensor, Tensor, dict[str, Any]]:
    """A picture for a latent of 16 x 16, its part for an area of 8 x 6 at 4 down and 8 right, options for that area."""
    image = hint_image(height=128, width=128)
    areas = Areas(by_uuid=dict.fromkeys((0, 1), (8, 6, 4, 8)), whole=(16, 16))
    return image, image[:, 32:96, 64:112], {KEY: areas}


@pytest.mark.parametrize("name", [*LATENT, "Flux XLabs", "Stable Diffusion", "T2I-Adapter"])
def test_an_area_sees_its_own_part_of_the_hint(name):
    family, (image, part, options) = FAMILIES[name](), whole_and_part()
    found = family.asked(family.controlled(image), size=(8, 6), options=options)
    pictures = [picture for batch in given(family) for picture in batch] if family.vae else []
    expected = family.asked(family.controlled(part), size=(8, 6))
    assert len(pictures) <= 1
    for a, b in zip(flat(found), flat(expected), strict=True):
        torch.testing.assert_close(a, b.expand_as(a), atol=1e-5 * float(b.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("name", ["SD3 inpaint", "Flux AliMama", "Qwen inpaint"])
def test_the_hosts_inpainting_node_with_our_control(name):
    family, (image, part, options) = FAMILIES[name](), whole_and_part()
    mask = torch.zeros(1, 128, 128)
    mask[:, 40:80, 70:100] = 1

    def inpainted(control: Any, picture: Tensor, mask: Tensor) -> Any:
        settings = {"strength": 0.8, "start_percent": 0.0, "end_percent": 1.0}
        positive, negative = family.base.prompts
        inputs = {"positive": positive, "negative": negative, "control_net": control, "vae": family.vae}
        return run(ControlNetInpaintingAliMamaApply, **inputs, image=picture, mask=mask, **settings)

    ours, host = (inpainted(control, image, mask) for control in (as_kit(family.controls.ours), family.controls.host))
    expected = family.asked(host, size=(16, 16))
    assert_equal(family.asked(ours, size=(16, 16)), expected)
    plain = family.asked(family.host_controlled(image), size=(16, 16))
    assert not torch.equal(flat(expected)[0], flat(plain)[0])
    in_area = family.asked(ours, size=(8, 6), options=options)
    expected = family.asked(inpainted(family.controls.host, part, mask[:, 32:96, 64:112]), size=(8, 6))
    for a, b in zip(flat(in_area), flat(expected), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("name", ["SD3", "Flux XLabs", "Stable Diffusion", "T2I-Adapter"])
def test_resize_modes(name):
    family, image = FAMILIES[name](), hint_image(height=64, width=96)
    stretched = family.asked(family.controlled(image, resize_mode="stretch"))
    filled = family.asked(family.controlled(image, resize_mode="fill"))
    plain = family.asked(family.controlled(image))
    assert not torch.equal(flat(stretched)[0], flat(plain)[0])
    assert not torch.equal(flat(stretched)[0], flat(filled)[0])


@pytest.mark.parametrize(("name", "make"), [("Flux InstantX", picture_vae), ("Qwen Fun", video_vae)])
def test_real_vaes(name, make):
    family = replace(FAMILIES[name](), vae=make())
    ours, host = family.controlled(hint_image()), family.host_controlled(hint_image())
    assert torch.equal(family.sampled(ours), family.sampled(host))
