"""Our Load and Apply against the host's own nodes, with the same file and seed: the same latents, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import comfy.controlnet
import comfy.model_patcher
import psutil
import pytest
import torch
from controlnet_kit.cn_core.files.checkpoint import Checkpoint
from controlnet_kit.cn_core.files.detect import detect
from controlnet_kit.cn_core.files.keymaps import rename
from controlnet_kit.cn_core.files.keymaps.controlnet import controlnet_keys
from controlnet_kit.cn_core.networks.config import SD1, SD2, SDXL
from controlnet_kit.nodes.control import KitControl
from controlnet_kit.nodes.load import Request, load_network
from random_models import (
    SHAPES,
    Tensors,
    conditioning,
    control_tensors,
    controlnet_file,
    hint_image,
    host_apply,
    host_load,
    host_model,
    our_apply,
    our_load,
    prompts,
    residuals,
    sample,
    unet_tensors,
)

import nodes

TINY = SHAPES["tiny"]


def bare(tensors: Tensors) -> Tensors:
    return tensors


def prefixed(tensors: Tensors) -> Tensors:
    return {f"control_model.{key}": tensor for key, tensor in tensors.items()}


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module")
def name() -> str:
    return controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors")


@pytest.fixture(scope="module")
def second() -> str:
    return controlnet_file(control_tensors(TINY.config, seed=20), "tiny_other.safetensors")


@pytest.mark.parametrize("family", ["SD 1.x", "SD 2.x", "SDXL"])
@pytest.mark.parametrize(("layout", "batch", "size"), [(bare, 1, (8, 8)), (prefixed, 2, (9, 16)), (bare, 1, (17, 15))])
def test_families_layouts_batches_and_sizes(family, layout, batch, size):
    shape = SHAPES[family]
    file = controlnet_file(layout(control_tensors(shape.config)), "family.safetensors")
    model, image = host_model(shape), hint_image(height=8 * size[0] + 5, width=8 * size[1] - 3)
    ours = sample(model, *our_apply(*prompts(shape), our_load(file), image), batch=batch, size=size)
    host = sample(model, *host_apply(*prompts(shape), host_load(file), image), batch=batch, size=size)
    assert torch.equal(ours, host)
    assert not torch.equal(ours, sample(model, *prompts(shape), batch=batch, size=size))


def test_65_by_63_latent():
    shape = SHAPES["SDXL"]
    file = controlnet_file(control_tensors(shape.config), "family.safetensors")
    model, image = host_model(shape), hint_image(height=500, width=510)
    ours = sample(model, *our_apply(*prompts(shape), our_load(file), image), size=(65, 63), steps=1)
    host = sample(model, *host_apply(*prompts(shape), host_load(file), image), size=(65, 63), steps=1)
    assert torch.equal(ours, host)


@pytest.mark.parametrize("strength", [0.5, 1.7, 10.0])
@pytest.mark.parametrize("window", [(0.0, 1.0), (0.2, 0.7), (0.5, 1.0)])
def test_strengths_and_windows(model, name, strength, window):
    image = hint_image()
    ours = sample(model, *our_apply(*prompts(TINY), our_load(name), image, strength, *window), steps=7)
    host = sample(model, *host_apply(*prompts(TINY), host_load(name), image, strength, *window), steps=7)
    assert torch.equal(ours, host)
    assert not torch.equal(ours, sample(model, *prompts(TINY), steps=7))


def test_a_window_of_one_noise_level(model, name):
    # the third of five steps lies exactly at 0.5, and is controlled
    window = (1.0, 0.5, 0.5)
    ours = sample(model, *our_apply(*prompts(TINY), our_load(name), hint_image(), *window), steps=5)
    assert torch.equal(
        ours, sample(model, *host_apply(*prompts(TINY), host_load(name), hint_image(), *window), steps=5)
    )


@pytest.mark.parametrize("hints", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_hint_batches(model, name, hints, batch):
    image = hint_image(hints)
    ours = sample(model, *our_apply(*prompts(TINY), our_load(name), image), batch=batch)
    host = sample(model, *host_apply(*prompts(TINY), host_load(name), image), batch=batch)
    assert torch.equal(ours, host)


def test_chains_with_the_hosts_controls_in_both_orders(model, name, second):
    images = hint_image(seed=30), hint_image(seed=31)

    def chained(first_load, first_apply, second_load, second_apply):
        conditionings = first_apply(*prompts(TINY), first_load(name), images[0], 0.8)
        return sample(model, *second_apply(*conditionings, second_load(second), images[1], 0.6, 0.0, 0.5))

    host = chained(host_load, host_apply, host_load, host_apply)
    assert torch.equal(chained(our_load, our_apply, host_load, host_apply), host)
    assert torch.equal(chained(host_load, host_apply, our_load, our_apply), host)
    assert torch.equal(chained(our_load, our_apply, our_load, our_apply), host)


def test_our_controls_in_the_hosts_node_and_the_hosts_in_ours(model, name):
    host = sample(model, *host_apply(*prompts(TINY), host_load(name), hint_image(), 0.8))
    assert torch.equal(sample(model, *host_apply(*prompts(TINY), our_load(name), hint_image(), 0.8)), host)
    assert torch.equal(sample(model, *our_apply(*prompts(TINY), host_load(name), hint_image(), 0.8)), host)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_files_in_half_precision(model, dtype):
    tensors = {key: tensor.to(dtype) for key, tensor in control_tensors(TINY.config).items()}
    file = controlnet_file(tensors, "half.safetensors")
    ours = sample(model, *our_apply(*prompts(TINY), our_load(file), hint_image()))
    assert torch.equal(ours, sample(model, *host_apply(*prompts(TINY), host_load(file), hint_image())))


def test_areas_see_the_hint_at_their_own_size(model, name):
    def prompt_with_area(apply, load):
        whole, negative = prompts(TINY)
        part = nodes.ConditioningSetArea().append(conditioning(TINY.config, seed=12), 48, 64, 8, 0, 1.0)[0]
        return sample(model, *apply(whole + part, negative, load(name), hint_image()), size=(12, 8))

    assert torch.equal(prompt_with_area(our_apply, our_load), prompt_with_area(host_apply, host_load))


def test_a_text_of_its_own(model, name):
    def with_text(apply, load):
        positive, negative = apply(*prompts(TINY), load(name), hint_image())
        for (_, entry), seed in ((positive[0], 13), (negative[0], 14)):
            entry["cross_attn_controlnet"] = conditioning(TINY.config, seed)[0][0]
        return sample(model, positive, negative)

    ours = with_text(our_apply, our_load)
    assert torch.equal(ours, with_text(host_apply, host_load))
    assert not torch.equal(ours, sample(model, *our_apply(*prompts(TINY), our_load(name), hint_image())))


@pytest.mark.parametrize("stem", ["random_shuffle", "random_shuffle_fp16"])
def test_shuffle_files_pool_by_their_name(model, name, stem):
    file = controlnet_file(control_tensors(TINY.config), f"{stem}.safetensors")
    ours = sample(model, *our_apply(*prompts(TINY), our_load(file), hint_image()))
    assert torch.equal(ours, sample(model, *host_apply(*prompts(TINY), host_load(file), hint_image())))
    assert not torch.equal(ours, sample(model, *our_apply(*prompts(TINY), our_load(name), hint_image())))


def test_inpainting_base(name):
    model = host_model(TINY, unet_tensors(replace(TINY.config, in_channels=9)))
    ours = sample(model, *our_apply(*prompts(TINY), our_load(name), hint_image()))
    assert torch.equal(ours, sample(model, *host_apply(*prompts(TINY), host_load(name), hint_image())))


def test_difference_files(model):
    tensors = prefixed(control_tensors(TINY.config)) | {"difference": torch.ones(())}
    file = controlnet_file(tensors, "difference.safetensors")
    host_control = nodes.DiffControlNetLoader().load_controlnet(model, file)[0]
    host = sample(model, *host_apply(*prompts(TINY), host_control, hint_image()))
    assert torch.equal(sample(model, *our_apply(*prompts(TINY), our_load(file, model=model), hint_image())), host)


@pytest.mark.parametrize("family", ["SD 1.x", "SD 2.x", "SDXL"])
def test_diffusers_layout_equals_ldm_layout(family):
    # the host reads diffusers' layout only at the public widths, so here our reading of the two is compared
    shape, tensors = SHAPES[family], control_tensors(SHAPES[family].config)
    ldm = controlnet_file(tensors, "ldm.safetensors")
    diffusers = controlnet_file(rename(tensors, controlnet_keys(shape.config)), "diffusers.safetensors")
    model = host_model(shape)
    outputs = [sample(model, *our_apply(*prompts(shape), our_load(file), hint_image())) for file in (ldm, diffusers)]
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("family", "config", "diffusers"),
    [
        ("SD 1.x", SD1, False),
        ("SD 1.x", SD1, True),
        ("SD 2.x", SD2, False),
        ("SD 2.x", SD2, True),
        ("SDXL", SDXL, True),
    ],
)
def test_residuals_at_real_width(family, config, diffusers):
    if config is SDXL and psutil.virtual_memory().available < 10e9:
        pytest.skip("SDXL at its real width takes 9 GB")
    tensors = control_tensors(config, dtype=torch.float16)
    if diffusers:
        tensors = rename(tensors, controlnet_keys(config))
    detected = detect(tensors)
    assert detected is not None
    assert (detected.family, detected.layout) == (family, "diffusers" if diffusers else "ldm")
    model, image = host_model(SHAPES[family]), hint_image()
    checkpoint = Checkpoint(path=Path("real.safetensors"), tensors=tensors, metadata={})
    ours = residuals(KitControl(load_network(checkpoint, detected, Request())), model, image)
    host = residuals(comfy.controlnet.load_controlnet_state_dict(dict(tensors)), model, image)
    assert all(torch.equal(a, b) for a, b in zip(ours, host, strict=True))
