"""ControlNet-LLLites in the host's UNet against hooks on its layers that follow kohya's formula."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import comfy.utils
import pytest
import torch
import torch.nn.functional as F
from controlnet_kit.cn_core.errors import CheckpointError, ControlNetKitError, FamilyMismatchError
from controlnet_kit.cn_core.files.checkpoint import Checkpoint
from controlnet_kit.nodes.control import KitControl
from controlnet_kit.nodes.sources.lllite import LLLiteSource, load_lllite
from controlnet_kit.nodes.sources.source import Call, Gain
from random_loras import lllite_tensors, projections
from random_models import SHAPES, controlnet_file, hint_image, host_model, our_apply, our_load, prompts, sample

TINY = SHAPES["tiny"]


def source(tensors, **options) -> LLLiteSource:
    return load_lllite(Checkpoint(path=Path("lllite.safetensors"), tensors=tensors, metadata={}), **options)


def token_grid(size: tuple[int, int], level: int) -> tuple[int, int]:
    height, width = (-(-side // 2**level) for side in size)
    return height, width


def embedded(tensors, module: str, hint, grid):
    """cond(c) of one module: 1 L E."""
    x, index = hint * 2 - 1, 0
    while (weight := tensors.get(f"{module}.conditioning1.{2 * index}.weight")) is not None:
        x = F.conv2d(
            x.relu() if index else x, weight, tensors[f"{module}.conditioning1.{2 * index}.bias"], weight.shape[2]
        )
        index += 1
    return F.interpolate(x, size=grid, mode="bilinear").flatten(2).transpose(1, 2)


@contextmanager
def hooked(model, tensors, config, image, size, strength=1.0):
    """kohya's formula before each projection of the host's UNet."""
    hint = comfy.utils.common_upscale(image.movedim(-1, 1), 8 * size[1], 8 * size[0], "nearest-exact", "center")
    # up to a multiple of the largest stride; each module then uses what it needs of that
    hint = F.pad(hint, (0, 64, 0, 64), mode="replicate")
    handles = []

    def add(key, level):
        module, grid = f"lllite_unet_{key.replace('.', '_')}", token_grid(size, level)
        strides = 8 * 2 ** min(level, 2)
        held = (-(-8 * size[0] // strides) * strides, -(-8 * size[1] // strides) * strides)
        embedding = embedded(tensors, module, hint[:, :, : held[0], : held[1]], grid)

        def linear(name, x):
            return F.linear(x, tensors[f"{module}.{name}.0.weight"], tensors[f"{module}.{name}.0.bias"])

        def change(_, inputs):
            x = inputs[0]
            both = torch.cat([embedding.repeat(x.shape[0], 1, 1), linear("down", x).relu()], dim=2)
            return (x + linear("up", linear("mid", both).relu()) * strength,)

        handles.append(model.model.diffusion_model.get_submodule(key).register_forward_pre_hook(change))

    for key, (_, level) in projections(config).items():
        add(key, level)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", ["SD 1.x", "SDXL"])
@pytest.mark.parametrize(("batch", "size", "strength"), [(1, (16, 8), 1.0), (2, (17, 15), 0.7)])
def test_same_as_hooks(family, batch, size, strength):
    shape = SHAPES[family]
    model, tensors, image = host_model(shape), lllite_tensors(shape.config), hint_image(height=8 * size[0] - 3)
    ours = sample(
        model,
        *our_apply(*prompts(shape), KitControl(source(tensors)), image, strength),
        batch=batch,
        size=size,
        steps=2,
    )
    with hooked(model, tensors, shape.config, image, size, strength):
        expected = sample(model, *prompts(shape), batch=batch, size=size, steps=2)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    without = sample(model, *prompts(shape), batch=batch, size=size, steps=2)
    assert (ours - without).abs().max() > 1e-2


def attended(model, tensors=None, *, features=None, rows=None, mask=None, patches=None):
    """One evaluation of the host's UNet for two rows, with a LLLite if there is one."""
    x = torch.randn(2, 4, 16, 8, generator=torch.Generator().manual_seed(5))
    context = torch.randn(2, 7, TINY.config.context_dim, generator=torch.Generator().manual_seed(6))
    options = {"patches": patches} if patches else {}
    with torch.inference_mode():
        if tensors is not None:
            loaded = source(tensors)
            features = loaded.encode([hint_image(height=128, width=64).movedim(-1, 1)], ())
            call = Call(x=x, sigmas=torch.ones(2), cond={}, chunks=2, options=options, sampling=None)
            loaded.install(call, features, Gain(rows=torch.tensor(rows or [1.0, 1.0]), mask=mask))
        out = model.model.diffusion_model(x, torch.tensor([500.0, 500.0]), context, transformer_options=options)
    return out, options


def test_rows_without_strength_stay_bit_for_bit():
    model, tensors = host_model(TINY), lllite_tensors(TINY.config)
    without, _ = attended(model)
    nothing, options = attended(model, tensors, rows=[0.0, 0.0])
    assert torch.equal(nothing, without)
    assert "patches" not in options
    both, _ = attended(model, tensors)
    one, _ = attended(model, tensors, rows=[0.0, 1.0])
    assert torch.equal(one[0], without[0])
    torch.testing.assert_close(one[1], both[1], rtol=1e-5, atol=1e-5)
    assert not torch.equal(both[0], without[0])


def test_masks():
    model, tensors = host_model(TINY), lllite_tensors(TINY.config)
    without, _ = attended(model)
    both, _ = attended(model, tensors)
    assert torch.equal(attended(model, tensors, mask=torch.ones(1, 1, 16, 8))[0], both)
    assert torch.equal(attended(model, tensors, mask=torch.zeros(1, 1, 16, 8))[0], without)
    second = torch.stack([torch.zeros(1, 16, 8), torch.ones(1, 16, 8)])
    masked, _ = attended(model, tensors, mask=second)
    assert torch.equal(masked[0], without[0])
    assert torch.equal(masked[1], both[1])
    torch.testing.assert_close(attended(model, tensors, mask=second, rows=[0.0, 1.0])[0], masked, rtol=1e-5, atol=1e-5)


def test_half_a_mask_at_the_projection():
    model, tensors = host_model(TINY), lllite_tensors(TINY.config)
    seen = []
    layer = model.model.diffusion_model.get_submodule("input_blocks.4.1.transformer_blocks.0.attn1.to_q")
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    left = torch.cat([torch.ones(1, 1, 16, 4), torch.zeros(1, 1, 16, 4)], dim=3)
    attended(model)
    attended(model, tensors, mask=left)
    handle.remove()
    plain, masked = (x.unflatten(1, (8, 4)) for x in seen)
    assert torch.equal(masked[:, :, 3:], plain[:, :, 3:])
    assert not torch.isclose(masked[:, :, :1], plain[:, :, :1]).all(dim=-1).any()


def test_patches_of_the_model_stay_and_come_after_ours():
    model, tensors, order = host_model(TINY), lllite_tensors(TINY.config), []

    def theirs(query, key, value, _):
        order.append(query.shape)
        return query, key, value

    patches = {"attn1_patch": [theirs], "attn1_output_patch": []}
    out, options = attended(model, tensors, patches=patches)
    assert patches == {"attn1_patch": [theirs], "attn1_output_patch": []}
    assert options["patches"]["attn1_patch"][1:] == [theirs]
    assert len(options["patches"]["attn2_patch"]) == 1
    assert order
    assert torch.equal(out, attended(model, tensors)[0])


def test_two_of_them_and_requeues():
    shape, image = SHAPES["SDXL"], hint_image()
    model = host_model(shape)
    first, second = (KitControl(source(lllite_tensors(shape.config, seed=seed))) for seed in (1, 2))
    alone = sample(model, *our_apply(*prompts(shape), first, image))
    for _ in range(2):
        chained = sample(model, *our_apply(*our_apply(*prompts(shape), first, image), second, image))
        assert not torch.isclose(chained, alone).all()
        assert torch.equal(sample(model, *our_apply(*prompts(shape), first, image)), alone)
    assert torch.equal(sample(model, *prompts(shape)), sample(host_model(shape), *prompts(shape)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_a_dtype_to_store_weights_in(dtype):
    tensors = lllite_tensors(TINY.config)
    loaded, model = source(tensors, dtype=dtype), host_model(TINY)
    assert {parameter.dtype for parameter in loaded.network.parameters()} == {dtype}
    same = source({key: tensor.to(dtype).float() for key, tensor in tensors.items()})
    latents = [sample(model, *our_apply(*prompts(TINY), KitControl(s), hint_image())) for s in (loaded, same)]
    assert torch.equal(*latents)


def test_a_copy_for_another_device():
    loaded = source(lllite_tensors(TINY.config))
    twin, hint = loaded.for_device(torch.device("cpu")), torch.rand(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(loaded.encode([hint], ()), twin.encode([hint], ()), strict=True))
    assert twin.models() != loaded.models()


def test_what_does_not_fit():
    loaded = source(lllite_tensors(SHAPES["SDXL"].config))
    message = (
        r"is a ControlNet-LLLite for SDXL and changes the input of input_blocks.7.1.\S+, of width 256; the model has "
    )
    with pytest.raises(FamilyMismatchError, match=message + r"no such layer\. Load one made for that model"):
        loaded.check(host_model(TINY).model)
    with pytest.raises(FamilyMismatchError, match=r"input_blocks.4.1.\S+, of width 64; the model has 128 there"):
        source(lllite_tensors(replace(TINY.config, channel_mult=(1, 1)))).check(host_model(TINY).model)
    with pytest.raises(CheckpointError, match="is no ControlNet-LLLite for a UNet, it looks like a VAE"):
        source({"taesd_decoder.1.weight": torch.zeros(1)})
    with pytest.raises(ControlNetKitError, match="takes one hint, and got 2"):
        loaded.encode([torch.rand(1, 3, 64, 64)] * 2, ())
    tensors = lllite_tensors(TINY.config)
    del tensors["lllite_unet_middle_block_1_transformer_blocks_0_attn2_to_q.mid.0.bias"]
    with pytest.raises(
        CheckpointError, match=r"missing: lllite_unet_middle_block_1_transformer_blocks_0_attn2_to_q.mid"
    ):
        source(tensors)


def test_options_that_it_does_not_have_are_refused():
    file = controlnet_file(lllite_tensors(TINY.config), "lllite.safetensors")
    with pytest.raises(ControlNetKitError, match="is a ControlNet-LLLite and acts inside the model"):
        our_apply(*prompts(TINY), our_load(file), hint_image(), control_mode="prompt is more important")
