"""The host's own VAE, CLIP and UNets of all families as a trainer's base."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import comfy.latent_formats
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models_base
import pytest
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from controlnet_kit.cn_core.diffusion import NoiseSchedule
from controlnet_kit.cn_core.errors import FamilyMismatchError
from controlnet_kit.nodes.tiny import LoadTinyBase
from controlnet_kit.nodes.train_base import HostCodec, HostText, file_of, identity, open_base, patched, process
from controlnet_kit.training.bases import kl
from random_models import SHAPES, host_model, randomise_, run, unet_tensors

DDCONFIG = {
    "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
SMALL = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 1}


@pytest.fixture(scope="module")
def vae_tensors() -> dict[str, torch.Tensor]:
    network = randomise_(AutoencoderKL(ddconfig=DDCONFIG, embed_dim=4), 3)
    return dict(network.state_dict())


@pytest.fixture(scope="module")
def vae(vae_tensors) -> Any:
    return comfy.sd.VAE(
        sd=dict(vae_tensors), config={"params": {"ddconfig": DDCONFIG, "embed_dim": 4}}, dtype=torch.float32
    )


@pytest.fixture(scope="module")
def clip() -> Any:
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32, "clip_l_model_config": SMALL})
    randomise_(clip.cond_stage_model.clip_l.transformer, 4)
    return clip


def test_the_vae_gives_mean_and_deviation_of_the_latents(vae, vae_tensors):
    codec = HostCodec(vae=vae, latents=comfy.latent_formats.SD15(), identity="")
    theirs = kl.KLCodec(load=lambda: kl.from_ldm(vae_tensors, name="base"), identity="", scaling=kl.SD_SCALING)
    pictures = torch.rand(3, 3, 64, 72)
    ours, expected = codec.encode(pictures), theirs.encode(pictures)
    torch.testing.assert_close(ours.mean, expected.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.std, expected.std, rtol=1e-3, atol=1e-5)
    assert ours.std.min() > 0
    assert not vae.first_stage_model.regularization._forward_pre_hooks
    latents = torch.randn(2, 4, 8, 9)
    torch.testing.assert_close(codec.decode(latents), theirs.decode(latents), rtol=1e-3, atol=1e-3)


def test_captions_are_plain_text_of_one_window(clip):
    text = HostText(clip=clip, identity="", pooled=False)
    long = " ".join(["house"] * 100)
    found = text.encode(["", "a (red:1.5) house", long])
    assert found.context.shape == (3, 77, 64) and found.pooled is None
    assert not torch.equal(found.context[1], text.encode(["a red house"]).context[0])
    torch.testing.assert_close(found.context[2], text.encode([" ".join(["house"] * 75)]).context[0])
    assert [text.words_lost(caption) for caption in ("", "a house", long)] == [0, 0, 25]
    assert text.chunks("(a:2)") == {"l": [[(token, 1.0) for token, _ in text.chunks("(a:2)")["l"][0]]]}


def test_sdxl_has_two_encoders_and_the_pooled_text():
    tokenizer: Any = comfy.sdxl_clip.SDXLTokenizer()

    def encode(tokens: dict[str, list], **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        assert {name: len(chunks) for name, chunks in tokens.items()} == {"g": 1, "l": 1}
        return torch.ones(1, 77, 2048), torch.ones(1, 1280)

    tokenize = tokenizer.tokenize_with_weights
    clip: Any = SimpleNamespace(tokenize=tokenize, encode_from_tokens=encode)  # the encoders themselves take 3 GB
    found = HostText(clip=clip, identity="", pooled=True).encode(["house " * 100])
    assert found.pooled is not None and found.pooled.shape == (1, 1280)


@pytest.mark.parametrize("family", ["SD 1.x", "SD 2.x", "SDXL", "tiny"])
def test_weights_of_all_families_are_copied(family):
    shape = SHAPES[family]
    tensors = unet_tensors(shape.config)
    model = host_model(shape, tensors)
    copies = patched(model)
    assert copies.keys() == tensors.keys()
    assert all(torch.equal(copies[key], tensors[key]) for key in tensors)
    originals = {value.untyped_storage().data_ptr() for value in model.model_state_dict().values()}
    assert originals.isdisjoint(value.untyped_storage().data_ptr() for value in copies.values())


def test_loras_are_in_the_copy_and_in_the_hash(clip):
    model = host_model(SHAPES["tiny"])
    key = "diffusion_model.input_blocks.0.0.weight"
    plain = patched(model)["input_blocks.0.0.weight"]
    changed = model.clone()
    changed.add_patches({key: ("diff", (torch.ones_like(plain),))}, 0.5)
    torch.testing.assert_close(patched(changed)["input_blocks.0.0.weight"], plain + 0.5)
    assert torch.equal(patched(model)["input_blocks.0.0.weight"], plain)
    twice = model.clone()
    twice.add_patches({key: ("diff", (torch.ones_like(plain),))}, 0.5)
    first, second, third = (identity(one) for one in (model, changed, twice))
    assert first != second == third
    assert identity(clip.patcher, None) != identity(clip.patcher, -2)


@pytest.mark.parametrize(("deviation", "expected"), [(0.01, "eps"), (0.2, "v")])
def test_what_the_model_predicts(deviation, expected):
    """The host goes by a bias of SD 2.x."""
    tensors = unet_tensors(SHAPES["SD 2.x"].config)
    bias = tensors["output_blocks.11.1.transformer_blocks.0.norm1.bias"]
    bias.copy_(torch.linspace(-1, 1, len(bias)) * deviation * 1.7)
    assert process(host_model(SHAPES["SD 2.x"], tensors), "it") == (expected, NoiseSchedule())


@pytest.mark.parametrize("kind", ["eps", "v_prediction"])
def test_noise_without_any_signal_needs_v(kind):
    (model,) = ModelSamplingDiscrete().patch(host_model(SHAPES["tiny"]), kind, zsnr=True)
    if kind == "v_prediction":
        assert process(model, "it") == ("v", NoiseSchedule(zero_snr=True))
    else:
        with pytest.raises(FamilyMismatchError, match="v also with zero terminal SNR"):
            process(model, "it")


def test_the_embedded_base(tmp_path):
    base = open_base(*run(LoadTinyBase))
    assert (base.family, base.prediction, base.codec.factor, base.codec.channels) == ("SD-shaped", "eps", 8, 4)
    assert not any(parameter.requires_grad for parameter in base.unet.parameters())
    assert base.text.words_lost("red apple") == 0
    model = run(LoadTinyBase)[0]
    model.cached_patcher_init = (None, (str(tmp_path / "gone.safetensors"),))
    assert file_of(model) is None
    (tmp_path / "gone.safetensors").touch()
    assert file_of(model) == tmp_path / "gone.safetensors"
