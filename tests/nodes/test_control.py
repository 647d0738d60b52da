"""`KitControl` as the host uses it: one run's state, copies, chains, devices, families."""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.supported_models
import pytest
import torch
from controlnet_kit.cn_core.errors import FamilyMismatchError
from controlnet_kit.cn_core.networks.config import SDXL
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.nodes.control import KitControl
from controlnet_kit.nodes.family import check_family
from controlnet_kit.nodes.hints import ENCODED
from controlnet_kit.nodes.sources.network import NetworkSource
from random_models import (
    SHAPES,
    conditioning,
    control_tensors,
    controlnet_file,
    hint_image,
    host_load,
    host_model,
    our_apply,
    our_load,
    prompts,
    residuals,
    sample,
    unet_tensors,
)
from torch import Tensor, nn

import nodes

TINY = SHAPES["tiny"]


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module")
def name() -> str:
    return controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors")


@pytest.fixture
def control(name: str) -> Any:
    return our_load(name)


@contextmanager
def counted(module: nn.Module) -> Generator[list[int]]:
    """The batch sizes that `module` was called with."""
    batches: list[int] = []
    handle = module.register_forward_hook(lambda _, inputs, __: batches.append(inputs[0].shape[0]))
    yield batches
    handle.remove()


def evaluate(control: Any, size: tuple[int, int], chunks: int = 2, batch: int = 1) -> list[Tensor]:
    """The residuals of one evaluation, between `pre_run` and `cleanup`."""
    generator = torch.Generator().manual_seed(sum(size))
    latent = torch.randn(chunks * batch, 4, *size, generator=generator)
    cond = {"c_crossattn": torch.randn(chunks * batch, 7, TINY.config.context_dim, generator=generator)}
    with torch.inference_mode():
        found = control.get_control(latent, torch.full((chunks * batch,), 3.0), cond, chunks, {})
    return [*found["middle"], *found["output"]]


def started(control: Any, model: comfy.model_patcher.ModelPatcher, image: Tensor) -> Any:
    """A copy with a hint, ready for `evaluate`."""
    control = control.copy().set_cond_hint(image.movedim(-1, 1))
    control.pre_run(model.model, model.model.model_sampling.percent_to_sigma)
    return control


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_it_has_what_the_host_and_tiling_extensions_ask_for(control):
    methods = ("get_control", "pre_run", "cleanup", "get_models", "get_extra_hooks", "copy", "deepclone_multigpu")
    assert all(callable(getattr(control, method)) for method in methods)
    assert isinstance(control, KitControl)
    assert (control.multigpu_clones, control.previous_controlnet, control.extra_hooks) == ({}, None, None)
    assert (control.cond_hint, control.compression_ratio, control.latent_format) == (None, 8, None)
    assert control.inference_memory_requirements(torch.float32) == 0
    assert control in {control}
    assert isinstance(control.source, NetworkSource)
    assert control.get_models() == [control.source.patcher]


def test_a_fresh_controlnet_changes_nothing(model):
    unet = UNet(TINY.config)
    unet.load_state_dict(unet_tensors(TINY.config))
    fresh = controlnet_file(dict(ControlNet.from_unet(unet).state_dict()), "fresh.safetensors")
    assert torch.equal(
        sample(model, *our_apply(*prompts(TINY), our_load(fresh), hint_image())), sample(model, *prompts(TINY))
    )


@pytest.mark.parametrize(("hints", "batch", "rows"), [(1, 1, 1), (1, 2, 1), (2, 2, 4)])
def test_the_hint_is_encoded_once_over_queue_runs(model, name, hints, batch, rows):
    control = our_load(name)
    controlled = our_apply(*prompts(TINY), control, hint_image(hints))
    with counted(control.source.network.input_hint_block) as batches:
        first, again = (sample(model, *controlled, batch=batch, steps=4) for _ in range(2))
    assert batches == [rows]
    assert torch.equal(first, again)


def test_other_hints_are_encoded_anew(model, name):
    control = our_load(name)
    with counted(control.source.network.input_hint_block) as batches:
        for seed in (1, 2, 1):
            sample(model, *our_apply(*prompts(TINY), control, hint_image(seed=seed)))
    assert batches == [1, 1]


def test_the_hint_is_encoded_once_per_size(model, name):
    control = our_load(name)
    whole, negative = prompts(TINY)
    part = nodes.ConditioningSetArea().append(conditioning(TINY.config, seed=12), 48, 64, 8, 0, 1.0)[0]
    with counted(control.source.network.input_hint_block) as batches:
        sample(model, *our_apply(whole + part, negative, control, hint_image()), size=(12, 8), steps=4)
    assert batches == [1, 1]


def test_the_sizes_that_a_run_keeps_are_bounded(model, control):
    control = started(control, model, hint_image())
    for height in range(4, 4 + ENCODED + 3):
        evaluate(control, (height, 4))
    assert len(control.run.encoded.by_place) == ENCODED


def test_cleanup_releases_the_run(model, control):
    positive, negative = our_apply(*prompts(TINY), control, hint_image())
    sample(model, positive, negative)
    used = positive[0][1]["control"]
    assert used is negative[0][1]["control"]
    assert used.run is None
    assert used.cond_hint is None


def test_runs_are_alike_with_an_error_and_an_interrupt_between(model, control):
    positive, negative = our_apply(*prompts(TINY), control, hint_image(), 0.9)

    def stop(*_: object) -> None:
        raise RuntimeError("stopped by the test")

    first = sample(model, positive, negative)
    with pytest.raises(RuntimeError, match="stopped by the test"), torch.inference_mode():
        latent = torch.zeros(1, 4, 10, 6)
        comfy.sample.sample(
            *(model, latent, 3, 4.0, "euler", "normal", positive, negative, latent), callback=stop, seed=5
        )
    assert torch.equal(sample(model, positive, negative), first)
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(model, positive, negative, size=(6, 10))
    assert torch.equal(sample(model, positive, negative), first)


def test_runs_do_not_grow(model, control):
    controlled = our_apply(*prompts(TINY), control, hint_image())

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(thing, Tensor) for thing in gc.get_objects())

    sample(model, *controlled)
    before = tensors()
    for _ in range(5):
        sample(model, *controlled)
    assert tensors() == before


def test_copies_are_independent_and_share_weights(model, control):
    first = started(control, model, hint_image(seed=50))
    expected = evaluate(first, (8, 8))
    second = started(first, model, hint_image(seed=51))
    second.strength, second.timestep_percent_range = 0.3, (0.2, 0.4)
    second.set_previous_controlnet(first)
    second.cleanup()
    first.pre_run(model.model, model.model.model_sampling.percent_to_sigma)
    assert (first.strength, first.timestep_percent_range, first.previous_controlnet) == (1.0, (0.0, 1.0), None)
    assert equal(evaluate(first, (8, 8)), expected)
    assert second.source is first.source is control.source


def test_inputs_are_left_as_they_are(model, control):
    image = hint_image()
    control = started(control, model, image)
    latent, text = torch.randn(2, 4, 8, 8), torch.randn(2, 7, TINY.config.context_dim)
    kept = [tensor.clone() for tensor in (image, latent, text)]
    with torch.inference_mode():
        found = control.get_control(latent, torch.tensor([3.0, 3.0]), {"c_crossattn": text}, 2, {})
    assert equal([image, latent, text], kept)
    assert list(found) == ["input", "middle", "output"]
    assert found["input"] == []


def test_hints_that_tiling_extensions_put_in(model, control, name):
    ours, host = (started(loaded, model, hint_image()) for loaded in (control, host_load(name)))
    other = hint_image(height=40, width=56, seed=60).movedim(-1, 1)
    for each in (ours, host):
        each.cond_hint_original = other
    assert equal(evaluate(ours, (5, 7)), evaluate(host, (5, 7)))
    tile = hint_image(height=64, width=64, seed=61).movedim(-1, 1)
    for each in (ours, host):
        each.cond_hint = tile
    assert equal(evaluate(ours, (8, 8)), evaluate(host, (8, 8)))
    for each in (ours, host):
        each.cond_hint = None
    assert equal(evaluate(ours, (8, 8)), evaluate(host, (8, 8)))


def test_a_clone_for_another_device(model, control):
    control = control.copy().set_cond_hint(hint_image().movedim(-1, 1), 0.7, (0.1, 0.9))
    device = torch.device("cpu")
    clone = control.deepclone_multigpu(device, autoregister=True)
    assert control.multigpu_clones == {device: clone}
    assert control.get_instance_for_device(device) is clone
    assert control.get_models() == [clone.source.patcher, control.source.patcher]
    own = {parameter.data_ptr() for parameter in control.source.network.parameters()}
    assert own.isdisjoint(parameter.data_ptr() for parameter in clone.source.network.parameters())
    assert (clone.strength, clone.timestep_percent_range) == (0.7, (0.1, 0.9))
    assert equal(residuals(clone, model, hint_image()), residuals(control, model, hint_image()))
    control.cleanup()
    assert not isinstance(control.copy().deepclone_multigpu(device).multigpu_clones.get(device), KitControl)


@pytest.mark.parametrize(("hints", "batch", "said"), [(1, 2, 0), (2, 2, 0), (3, 2, 1), (2, 5, 1)])
def test_an_odd_number_of_hints_is_said_once_per_run(model, control, caplog, hints, batch, said):
    controlled = our_apply(*prompts(TINY), control, hint_image(hints))
    with caplog.at_level(logging.WARNING, logger="controlnet_kit"):
        sample(model, *controlled, batch=batch, steps=4)
        sample(model, *controlled, batch=batch, steps=4)
    messages = [record.getMessage() for record in caplog.records if "hints for a batch" in record.getMessage()]
    assert len(messages) == 2 * said
    assert all(f"tiny_random.safetensors: {hints} hints for a batch of {batch} latents" in line for line in messages)


def test_another_family_is_refused_before_the_first_step(control):
    model = host_model(SHAPES["SD 1.x"])
    conditionings = our_apply(*prompts(SHAPES["SD 1.x"]), control, hint_image())
    expected = (
        "tiny_random.safetensors is an SD-shaped ControlNet (context 64); the model takes 768 (SD 1.x). "
        "Load a ControlNet made for SD 1.x."
    )
    with counted(model.model.diffusion_model) as steps, pytest.raises(FamilyMismatchError, match=re.escape(expected)):
        sample(model, *conditionings)
    assert steps == []


def test_what_is_said_of_other_families():
    sd1, sdxl = host_model(SHAPES["SD 1.x"]).model, host_model(SHAPES["SDXL"]).model
    flux_config = {
        "image_model": "flux",
        **{"in_channels": 16, "out_channels": 16, "patch_size": 2, "hidden_size": 128, "num_heads": 1},
        **{"vec_in_dim": 8, "context_in_dim": 8, "mlp_ratio": 1.0, "depth": 1, "depth_single_blocks": 1},
        **{"axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": []},
    }
    flux = comfy.supported_models.Flux(flux_config).get_model({})
    check_family("x", "SDXL", SDXL, sdxl)
    for config, model, message in (
        (SDXL, sd1, "x is an SDXL ControlNet (context 2048); the model takes 768 (SD 1.x). Load a ControlNet made for"),
        (SDXL, flux, "x is an SDXL ControlNet (context 2048); the model (flux) is not a Stable Diffusion UNet. Load"),
        (SHAPES["SD 1.x"].config, sdxl, "(context 768); the model takes 2048 (SDXL). Load a ControlNet made for SDXL."),
    ):
        with pytest.raises(FamilyMismatchError, match=re.escape(message)):
            check_family("x", "SDXL" if config is SDXL else "SD 1.x", config, model)
