"""Control-LoRAs against the host's own class, which reads the same file: the same latents, bit for bit."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError, FamilyMismatchError
from controlnet_kit.cn_core.files.checkpoint import Checkpoint
from controlnet_kit.cn_core.files.control_lora import extract, merge
from controlnet_kit.cn_core.files.detect import detect
from controlnet_kit.nodes.control import KitControl
from controlnet_kit.nodes.sources.control_lora import ControlLoRASource, load_control_lora
from controlnet_kit.nodes.sources.network import build_network_source
from random_loras import control_lora_tensors
from random_models import (
    SHAPES,
    control_tensors,
    controlnet_file,
    hint_image,
    host_apply,
    host_load,
    host_model,
    our_apply,
    prompts,
    residuals,
    sample,
    unet_tensors,
)

TINY = SHAPES["tiny"]


def source(tensors, **options) -> ControlLoRASource:
    return load_control_lora(Checkpoint(path=Path("lora.safetensors"), tensors=tensors, metadata={}), **options)


def both(model, tensors, shape, **options):
    """Our latents and the host's."""
    image, file = hint_image(height=77, width=61), controlnet_file(tensors, "lora.safetensors")
    ours = sample(model, *our_apply(*prompts(shape), KitControl(source(tensors)), image), **options)
    return ours, sample(model, *host_apply(*prompts(shape), host_load(file), image), **options)


@pytest.mark.parametrize("family", ["SD 1.x", "SD 2.x", "SDXL"])
@pytest.mark.parametrize(("dtype", "batch", "size"), [(torch.float32, 2, (8, 9)), (torch.float16, 1, (17, 15))])
def test_families_dtypes_batches_and_sizes(family, dtype, batch, size):
    shape = SHAPES[family]
    model = host_model(shape)
    ours, host = both(model, control_lora_tensors(shape.config, dtype=dtype), shape, batch=batch, size=size)
    assert torch.equal(ours, host)
    assert not torch.equal(ours, sample(model, *prompts(shape), batch=batch, size=size))


def half_model(shape, manual_cast) -> comfy.model_patcher.ModelPatcher:
    """As `host_model`, with weights in half precision."""
    tensors = {key: tensor.half() for key, tensor in unet_tensors(shape.config).items()}
    config = shape.host(comfy.model_detection.detect_unet_config(tensors, ""))
    config.set_inference_dtype(torch.float16, manual_cast)
    model = config.get_model(tensors, "")
    model.load_model_weights(tensors, "")
    device, offload_device = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=offload_device)


@pytest.mark.parametrize("manual_cast", [None, torch.float32])
def test_models_in_half_precision(manual_cast):
    shape = SHAPES["SD 1.x"]
    model = half_model(shape, manual_cast)
    ours, host = both(model, control_lora_tensors(shape.config, dtype=torch.float16), shape)
    assert torch.equal(ours, host)


def test_layers_that_the_file_leaves_as_they_are():
    tensors = control_lora_tensors(TINY.config)
    spared = ("time_embed.2.", "input_blocks.1.0.out_layers.0.", "middle_block.1.proj_out.", "input_blocks.4.1.norm.")
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(spared)}
    del tensors["input_blocks.2.0.in_layers.2.bias"]
    ours, host = both(host_model(TINY), tensors, TINY)
    assert torch.equal(ours, host)


def test_an_inpainting_model():
    # the host's own class fails on one; its latent's channels are those of a model without the further ones
    wide = unet_tensors(replace(TINY.config, in_channels=9))
    narrow = {**wide, "input_blocks.0.0.weight": wide["input_blocks.0.0.weight"][:, :4]}
    control = KitControl(source(control_lora_tensors(TINY.config)))
    with torch.inference_mode():
        found = residuals(control, host_model(TINY, wide), hint_image())
        expected = residuals(control, host_model(TINY, narrow), hint_image())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    inpainted = sample(host_model(TINY, wide), *our_apply(*prompts(TINY), control, hint_image()))
    assert not torch.equal(inpainted, sample(host_model(TINY, wide), *prompts(TINY)))


def test_weights_are_the_models_own():
    model = host_model(TINY)
    loaded = source(control_lora_tensors(TINY.config))
    loaded.start(model.model)
    layer = loaded.network.get_submodule("input_blocks.1.0.in_layers.2")
    assert layer.base is model.model.diffusion_model.get_submodule("input_blocks.1.0.in_layers.2")
    copied = sum(t.numel() for t in control_tensors(TINY.config).values())
    assert sum(t.numel() for t in loaded.network.state_dict().values()) < 0.5 * copied
    assert loaded.models() == [loaded.patcher]


def test_no_run_keeps_a_model_in_memory():
    model = host_model(TINY)
    loaded = source(control_lora_tensors(TINY.config))
    loaded.start(model.model)  # and no stop, as after an error
    gone = weakref.ref(model.model.diffusion_model)
    del model
    gc.collect()
    assert gone() is None


def test_requeues_with_another_model_between():
    control, image = KitControl(source(control_lora_tensors(TINY.config))), hint_image()
    first, second = host_model(TINY), host_model(TINY, unet_tensors(TINY.config, seed=9))
    latents = [sample(model, *our_apply(*prompts(TINY), control, image)) for model in (first, second, first)]
    assert torch.equal(latents[0], latents[2])
    assert not torch.equal(latents[0], latents[1])


def test_extracted_from_a_controlnet():
    # of full rank in float32, so that host and kit give what the ControlNet itself gives
    controlnet, base = control_tensors(TINY.config), unet_tensors(TINY.config)
    lora, model = extract(controlnet, base, 4096, dtype=torch.float32).tensors, host_model(TINY, base)
    ours, host = both(model, lora, TINY)
    file = controlnet_file(controlnet, "whole.safetensors")
    whole = sample(model, *host_apply(*prompts(TINY), host_load(file), hint_image(height=77, width=61)))
    assert torch.equal(ours, host)
    torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-4)


def test_merged_into_a_controlnet():
    base, lora = unet_tensors(TINY.config), control_lora_tensors(TINY.config)
    merged, model = merge(lora, base), host_model(TINY, base)
    detected = detect(merged)
    assert detected is not None
    whole = build_network_source(merged, detected, name="merged")
    ours = residuals(KitControl(source(lora)), model, hint_image())
    expected = residuals(KitControl(whole), model, hint_image())
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_a_dtype_to_store_matrices_in(dtype):
    tensors = control_lora_tensors(TINY.config)
    loaded = source(tensors, dtype=dtype)
    assert loaded.network.dtype == dtype
    same = source({key: t.to(dtype).float() if t.numel() else t for key, t in tensors.items()})
    model, image = host_model(TINY), hint_image()
    pairs = zip(residuals(KitControl(loaded), model, image), residuals(KitControl(same), model, image), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_copy_for_another_device():
    model = host_model(TINY)
    loaded = source(control_lora_tensors(TINY.config))
    loaded.start(model.model)
    twin = loaded.for_device(torch.device("cpu"))
    with pytest.raises(RuntimeError, match=r"lora.safetensors is a Control-LoRA without a model"):
        twin.encode([torch.rand(1, 3, 64, 64)], ())
    pairs = zip(*(residuals(KitControl(s), model, hint_image()) for s in (loaded, twin)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_models_that_do_not_fit():
    loaded = source(control_lora_tensors(TINY.config))
    with pytest.raises(FamilyMismatchError, match=r"lora.safetensors is an SD-shaped ControlNet .context 64"):
        loaded.check(host_model(SHAPES["SD 1.x"]).model)
    narrower = host_model(TINY, unet_tensors(replace(TINY.config, channel_mult=(1, 1))))
    message = (
        r"changes input_blocks\.4\.0\.\S+ of shape \(\d+, .*\), and the model has one of shape \(\d+, .*\)\. Use it"
    )
    with pytest.raises(FamilyMismatchError, match=message):
        loaded.start(narrower.model)


def test_files_that_are_none():
    with pytest.raises(CheckpointError, match=r"is no Control-LoRA for a Stable Diffusion UNet, it looks like a VAE"):
        source({"taesd_decoder.1.weight": torch.zeros(1)})
    tensors = control_lora_tensors(TINY.config)
    with pytest.raises(
        CheckpointError, match=r"for a Stable Diffusion UNet, it looks like one of another network\. Choose"
    ):
        source({key: tensor for key, tensor in tensors.items() if not key.startswith("middle_block.")})
    del tensors["zero_convs.1.0.bias"]
    with pytest.raises(CheckpointError, match=r"missing: zero_convs.1.0.bias"):
        source(tensors)
