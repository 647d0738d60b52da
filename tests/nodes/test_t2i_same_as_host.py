"""T2I-Adapters against the host's own class, which reads the same file: the same residuals, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import comfy.controlnet
import comfy.utils
import folder_paths
import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError, ControlNetKitError, FamilyMismatchError
from controlnet_kit.cn_core.files.checkpoint import Checkpoint, read
from controlnet_kit.cn_core.networks.t2i_adapter import T2IAdapterConfig
from controlnet_kit.nodes.control import KitControl
from controlnet_kit.nodes.sources.source import Call
from controlnet_kit.nodes.sources.t2i_adapter import T2IAdapterSource, load_t2i_adapter
from random_adapters import NARROW, adapter_tensors
from random_models import (
    SHAPES,
    controlnet_file,
    hint_image,
    host_apply,
    host_load,
    host_model,
    our_apply,
    prompts,
    sample,
)

LIGHT = T2IAdapterConfig(kind="light", blocks=4)
"""The host knows light adapters at this width only."""
CONFIGS = {**NARROW, "light": LIGHT}


def source(tensors, **options) -> T2IAdapterSource:
    return load_t2i_adapter(Checkpoint(path=Path("adapter.pth"), tensors=tensors, metadata={}), **options)


def ours(loaded: T2IAdapterSource, x, hint, chunks):
    """As a control asks for residuals."""
    height, width = loaded.hint_size(*x.shape[2:])
    pixels = comfy.utils.common_upscale(hint, width, height, "nearest-exact", "center")
    call = Call(x=x, sigmas=torch.ones(len(x)), cond={}, chunks=chunks, options={}, sampling=None)
    with torch.inference_mode():
        pixels = comfy.controlnet.broadcast_image_to(pixels, len(x), chunks)
        return loaded.residuals(call, loaded.encode([pixels], ()))


def host(tensors, x, hint, chunks):
    control = comfy.controlnet.load_t2i_adapter(dict(tensors))
    assert control is not None
    control.set_cond_hint(hint)
    with torch.inference_mode():
        return control.get_control(x, torch.ones(len(x)), {}, chunks, {})


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, entries in expected.items():
        assert [entry is None for entry in found[key]] == [entry is None for entry in entries]
        assert all(torch.equal(a, b) for a, b in zip(found[key], entries, strict=True) if b is not None)


random = partial(torch.rand, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("hints", "rows", "chunks", "size"), [(1, 2, 2, (8, 8)), (2, 4, 2, (17, 15)), (3, 2, 1, (9, 16))]
)
def test_residuals_and_their_places(name, hints, rows, chunks, size):
    tensors = adapter_tensors(CONFIGS[name])
    x, hint = random(rows, 4, *size), random(hints, 3, 8 * size[0] + 5, 8 * size[1] - 3)
    assert_equal(ours(source(tensors), x, hint, chunks), host(tensors, x, hint, chunks))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["full", "XL"])
def test_files_in_half_precision(name, dtype):
    tensors = adapter_tensors(NARROW[name], dtype=dtype)
    x, hint = random(2, 4, 8, 8), random(1, 3, 64, 64)
    found = ours(source(tensors), x, hint, 1)
    assert_equal(found, host(tensors, x, hint, 1))


def test_a_dtype_to_store_weights_in():
    tensors = adapter_tensors(NARROW["full"])
    loaded = source(tensors, dtype=torch.float16)
    assert loaded.network.dtype == torch.float16
    x, hint = random(1, 4, 8, 8), random(1, 3, 64, 64)
    assert_equal(ours(loaded, x, hint, 1), ours(source({k: t.half() for k, t in tensors.items()}), x, hint, 1))


def test_residuals_are_fresh_every_time():
    loaded, x = source(adapter_tensors(NARROW["XL"])), random(1, 4, 8, 8)
    call = Call(x=x, sigmas=torch.ones(1), cond={}, chunks=1, options={}, sampling=None)
    with torch.inference_mode():
        features = loaded.encode([random(1, 3, 64, 64)], ())
        first = loaded.residuals(call, features)
        kept = [None if entry is None else entry.clone() for entry in first["input"]]
        for entry in (*first["input"], *first["middle"]):
            if entry is not None:
                entry.zero_()
        first["input"].clear()
        assert_equal({"input": loaded.residuals(call, features)["input"]}, {"input": kept})


@pytest.mark.parametrize(("family", "name"), [("SD 1.x", "full"), ("SD 2.x", "one channel"), ("SDXL", "XL")])
def test_fitting_models(family, name):
    config = replace(NARROW[name], channels=(64, 128, 256, 256))
    source(adapter_tensors(config)).check(host_model(SHAPES[family]).model)


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        (
            "SDXL",
            "full",
            "adapter.pth is an SD 1.x T2I-Adapter .widths 64, 128, 256, 256.; the model's UNet has 64, 128, 256",
        ),
        (
            "SD 1.x",
            "XL",
            "adapter.pth is an SDXL T2I-Adapter .widths 64, 128, 256.; the model's UNet has 64, 128, 256, 256",
        ),
        ("tiny", "XL", "the model's UNet has 64, 128 and 2, 2 blocks per level"),
    ],
)
def test_models_of_another_family(family, name, message):
    config = replace(NARROW[name], channels=(64, 128, 256, 256))
    with pytest.raises(FamilyMismatchError, match=message):
        source(adapter_tensors(config)).check(host_model(SHAPES[family]).model)


def test_files_and_hints_that_it_cannot_take():
    with pytest.raises(CheckpointError, match=r"adapter.pth is no T2I-Adapter, it looks like a VAE"):
        source({"taesd_decoder.1.weight": torch.zeros(1)})
    tensors = adapter_tensors(NARROW["full"])
    with pytest.raises(ControlNetKitError, match="takes one hint, and got 2"):
        source(tensors).encode([random(1, 3, 64, 64)] * 2, ())
    del tensors["body.7.block2.bias"]
    with pytest.raises(CheckpointError, match=r"missing: body.7.block2.bias"):
        source(tensors)


def test_a_copy_for_another_device():
    loaded = source(adapter_tensors(NARROW["full"]))
    twin = loaded.for_device(torch.device("cpu"))
    x, hint = random(1, 4, 8, 8), random(1, 3, 64, 64)
    assert_equal(ours(twin, x, hint, 1), ours(loaded, x, hint, 1))
    assert twin.models() != loaded.models()
    addresses = [{p.data_ptr() for p in adapter.network.parameters()} for adapter in (twin, loaded)]
    assert not addresses[0] & addresses[1]


def control(name: str) -> KitControl:
    path = folder_paths.get_full_path("controlnet", name)
    assert path is not None
    return KitControl(load_t2i_adapter(read(Path(path))))


@pytest.mark.parametrize(("family", "name"), [("SD 1.x", "full"), ("SD 1.x", "one channel"), ("SDXL", "XL")])
@pytest.mark.parametrize(("batch", "size"), [(1, (8, 8)), (2, (17, 15))])
def test_samples(family, name, batch, size):
    shape, config = SHAPES[family], replace(NARROW[name], channels=(64, 128, 256, 256))
    file = controlnet_file(adapter_tensors(config), "adapter.safetensors")
    model, image = host_model(shape), hint_image(height=8 * size[0] + 5, width=8 * size[1] - 3)
    settings = (0.7, 0.0, 0.8)
    found = sample(model, *our_apply(*prompts(shape), control(file), image, *settings), batch=batch, size=size)
    expected = sample(model, *host_apply(*prompts(shape), host_load(file), image, *settings), batch=batch, size=size)
    assert torch.equal(found, expected)
    assert not torch.equal(found, sample(model, *prompts(shape), batch=batch, size=size))


@pytest.mark.parametrize(("family", "name"), [("SD 1.x", "full"), ("SDXL", "XL")])
def test_chains_with_the_hosts_in_both_orders(family, name):
    shape, config = SHAPES[family], replace(NARROW[name], channels=(64, 128, 256, 256))
    files = [controlnet_file(adapter_tensors(config, seed), f"adapter_{seed}.safetensors") for seed in (1, 2)]
    model, images = host_model(shape), (hint_image(seed=30), hint_image(seed=31))

    def chained(first, second):
        conditionings = host_apply(*prompts(shape), first(files[0]), images[0], 0.8)
        return sample(model, *host_apply(*conditionings, second(files[1]), images[1], 0.6))

    expected = chained(host_load, host_load)
    assert torch.equal(chained(control, host_load), expected)
    assert torch.equal(chained(host_load, control), expected)
    assert torch.equal(chained(control, control), expected)
