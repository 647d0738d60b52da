"""CtrLoRA in the host: its hint as a latent, its ControlNet against the host's own class, its LoRA on its base."""

from __future__ import annotations

from pathlib import Path

import comfy.cldm.cldm
import comfy.latent_formats
import comfy.ops
import comfy.utils
import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError, ControlNetKitError
from controlnet_kit.cn_core.files.checkpoint import Checkpoint
from controlnet_kit.cn_core.files.ctrlora import apply
from controlnet_kit.nodes.cache import HintCache
from controlnet_kit.nodes.control import KitControl
from controlnet_kit.nodes.sources.ctrlora import CtrLoRASource, load_ctrlora
from controlnet_kit.nodes.sources.source import Call
from controlnet_kit.nodes.tiny import ASSETS, TinyVAE, read_asset
from random_loras import ctrlora_base_tensors, ctrlora_tensors
from random_models import (
    SHAPES,
    control_tensors,
    controlnet_file,
    hint_image,
    host_model,
    our_apply,
    our_load,
    prompts,
    sample,
)

SD1 = SHAPES["SD 1.x"]


def source(tensors, **options) -> CtrLoRASource:
    return load_ctrlora(Checkpoint(path=Path("ctrlora.ckpt"), tensors=tensors, metadata={}), **options)


def control(loaded: CtrLoRASource) -> KitControl:
    """As the loader makes it: the latent format tells nodes that a VAE is needed."""
    found = KitControl(loaded)
    found.latent_format = comfy.latent_formats.SD15()  # pyright: ignore[reportAttributeAccessIssue]
    return found


@pytest.fixture(scope="module")
def vae() -> TinyVAE:
    return TinyVAE(read_asset(ASSETS, "tiny_vae.safetensors"))


@pytest.fixture(scope="module")
def model():
    return host_model(SD1)


def host_network(tensors, config) -> comfy.cldm.cldm.ControlNet:
    """The host's ControlNet with a hint encoder that says nothing."""
    network = comfy.cldm.cldm.ControlNet(
        image_size=32,
        in_channels=4,
        model_channels=config.model_channels,
        hint_channels=3,
        num_res_blocks=list(config.num_res_blocks),
        channel_mult=config.channel_mult,
        transformer_depth=[depth for depth in config.transformer_depth for _ in range(2)],  # pyright: ignore[reportArgumentType]
        transformer_depth_middle=1,
        context_dim=config.context_dim,
        use_spatial_transformer=True,
        legacy=False,
        num_head_channels=64,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    silent = {
        key: torch.zeros_like(t) for key, t in network.state_dict().items() if key.startswith("input_hint_block.")
    }
    network.load_state_dict({**tensors, **silent})
    return network


@pytest.mark.parametrize(("batch", "size"), [(1, (8, 8)), (2, (17, 15))])
def test_residuals_same_as_the_hosts_network(model, vae, batch, size):
    base, lora = ctrlora_base_tensors(SD1.config), ctrlora_tensors(SD1.config)
    loaded = source(lora, base=source(base))
    hint = comfy.utils.common_upscale(hint_image().movedim(-1, 1), 8 * size[1], 8 * size[0], "nearest-exact", "center")
    generator = torch.Generator().manual_seed(4)
    x, sigmas = torch.randn(batch, 4, *size, generator=generator), torch.tensor([3.0] * batch)
    context = torch.randn(batch, 7, SD1.config.context_dim, generator=generator)
    asking = control(loaded).set_cond_hint(hint, vae=vae)
    sampling = model.model.model_sampling
    call = Call(x=x, sigmas=sigmas, cond={"c_crossattn": context}, chunks=1, options={}, sampling=sampling)
    with torch.inference_mode():
        loaded.prepare(asking, HintCache())
        loaded.start(model.model)
        found = loaded.residuals(call, loaded.encode([hint], ()))
        # the VAE's network sees [0, 1] itself, and the latent is scaled as SD 1.x's are
        latent = vae.first_stage_model.encode(hint) * 0.18215
        network = host_network(apply(base, lora), SD1.config)
        expected = network(latent.repeat(batch, 1, 1, 1), torch.zeros_like(hint), sampling.timestep(sigmas), context)
    torch.testing.assert_close(found["middle"][0], expected["middle"][0], rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(found["output"], expected["output"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_samples_and_encodes_once(model, vae):
    loaded = source(ctrlora_tensors(SD1.config), base=source(ctrlora_base_tensors(SD1.config)))
    asking, image, count = control(loaded), hint_image(), []
    handle = vae.first_stage_model.encoder.register_forward_hook(lambda *_: count.append(1))
    latents = [sample(model, *our_apply(*prompts(SD1), asking, image, vae=vae)) for _ in range(3)]
    handle.remove()
    assert len(count) == 1
    assert torch.equal(latents[0], latents[2])
    assert not torch.equal(latents[0], sample(model, *prompts(SD1)))
    assert loaded.vae is None


def test_the_vae_matters(model, vae):
    loaded = control(source(ctrlora_base_tensors(SD1.config)))
    other = TinyVAE(read_asset(ASSETS, "tiny_vae.safetensors"))
    for parameter in other.first_stage_model.parameters():
        parameter.mul_(0.9)
    first, second = (sample(model, *our_apply(*prompts(SD1), loaded, hint_image(), vae=v)) for v in (vae, other))
    assert not torch.equal(first, second)


def test_without_a_vae(model):
    asking = control(source(ctrlora_base_tensors(SD1.config)))
    with pytest.raises(ControlNetKitError, match="takes its hint as a latent: connect the `vae` of ApplyControlNet"):
        our_apply(*prompts(SD1), asking, hint_image())
    with pytest.raises(ControlNetKitError, match=r"ctrlora.ckpt is a CtrLoRA and takes its hint as a latent: connect"):
        asking.set_cond_hint(hint_image().movedim(-1, 1)).pre_run(model.model, float)


def test_bases_that_are_missing_or_none():
    lora = ctrlora_tensors(SD1.config)
    with pytest.raises(CheckpointError, match=r"ctrlora.ckpt is a CtrLoRA, .* its base is none"):
        source(lora)
    name = controlnet_file(control_tensors(SD1.config), "ordinary.safetensors")
    with pytest.raises(CheckpointError, match="its base is a ControlNet of another kind"):
        source(lora, base=our_load(name).source)
    with pytest.raises(CheckpointError, match=r"ctrlora.ckpt is neither a CtrLoRA nor the base of one, .* a VAE"):
        source({"taesd_decoder.1.weight": torch.zeros(1)})
    base = ctrlora_base_tensors(SD1.config)
    del base["control_model.zero_convs.3.0.bias"]
    with pytest.raises(CheckpointError, match=r"missing: zero_convs.3.0.bias"):
        source(base)


def test_copies_share_weights_and_nothing_else(vae):
    loaded = source(ctrlora_base_tensors(SD1.config))
    loaded.prepare(control(loaded).set_cond_hint(torch.zeros(1, 3, 8, 8), vae=vae), HintCache())
    twin = loaded.copy()
    assert twin.controlnet is loaded.controlnet
    assert twin.vae is None
    elsewhere = loaded.for_device(torch.device("cpu"))
    assert elsewhere.models() != loaded.models()
