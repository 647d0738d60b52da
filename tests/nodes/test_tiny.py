"""`LoadTinyBase`: the embedded base in the host's own nodes, here with random weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.sd
import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError
from controlnet_kit.cn_core.networks.autoencoder import SCALING_FACTOR, Autoencoder
from controlnet_kit.cn_core.networks.config import TINY
from controlnet_kit.cn_core.networks.text_encoder import WordTextEncoder
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.nodes import tiny
from controlnet_kit.nodes.tiny import TEXT_ENCODER, UNET, VAE, TinyVAE, load_clip, load_model, read_asset
from random_models import randomise_, run, sample
from safetensors.torch import save_file

import nodes

WORDS = ["apple", "red", "blue", "background", "on"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The three files, half precision, as the trainer writes them."""
    folder = tmp_path_factory.mktemp("assets")
    parts = ((UNet(TINY), UNET, None), (Autoencoder(), VAE, None))
    for module, name, metadata in (*parts, (WordTextEncoder(WORDS), TEXT_ENCODER, {"vocabulary": json.dumps(WORDS)})):
        tensors = {key: tensor.half() for key, tensor in randomise_(module, seed=1).state_dict().items()}
        save_file(tensors, folder / name, metadata=metadata)
    return folder


def test_text_to_image_through_the_hosts_nodes(folder):
    model, clip = load_model(read_asset(folder, UNET)), load_clip(read_asset(folder, TEXT_ENCODER))
    vae = TinyVAE(read_asset(folder, VAE))
    with torch.inference_mode():
        prompts: list[Any] = [nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("red apple", "")]
        latent = sample(model, *prompts, size=(16, 16))
        image = nodes.VAEDecode().decode(vae, {"samples": latent})[0]
    assert image.shape == (1, 128, 128, 3)
    assert 0.0 <= image.min() <= image.max() <= 1.0
    other: Any = nodes.CLIPTextEncode().encode(clip, "blue background")[0]
    assert not torch.equal(sample(model, other, prompts[1], size=(16, 16)), latent)


def test_model_computes_what_our_unet_does(folder):
    checkpoint = read_asset(folder, UNET)
    unet = UNet(TINY)
    unet.load_state_dict(checkpoint.tensors)
    model = load_model(checkpoint)
    x, timesteps, context = torch.randn(2, 4, 16, 16), torch.tensor([10.0, 500.0]), torch.randn(2, 16, 64)
    with torch.inference_mode():
        host = model.model.diffusion_model(x.to(model.model.get_dtype_inference()), timesteps, context=context)
        torch.testing.assert_close(host.float(), unet(x, timesteps, context), rtol=1e-3, atol=1e-3)
    assert model.model.latent_format.scale_factor == SCALING_FACTOR


def test_vae_in_the_hosts_nodes(folder):
    checkpoint = read_asset(folder, VAE)
    autoencoder = Autoencoder()
    autoencoder.load_state_dict(checkpoint.tensors)
    vae, image = TinyVAE(checkpoint), torch.rand(2, 64, 72, 3)
    with torch.inference_mode():
        latent = nodes.VAEEncode().encode(vae, image)[0]["samples"]
        expected = autoencoder.encode(image.movedim(-1, 1) * 2 - 1)
        torch.testing.assert_close(latent, expected)
        decoded = nodes.VAEDecode().decode(vae, {"samples": latent})[0]
        expected = (autoencoder.decode(latent).movedim(1, -1) / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(decoded, expected)
    assert decoded.shape == image.shape


def test_vae_in_the_hosts_tiled_nodes(folder):
    vae, image = TinyVAE(read_asset(folder, VAE)), torch.rand(1, 256, 256, 3)
    with torch.inference_mode():
        latent = nodes.VAEEncodeTiled().encode(vae, image, tile_size=128, overlap=32)[0]["samples"]
        decoded = nodes.VAEDecodeTiled().decode(vae, {"samples": latent}, tile_size=128, overlap=32)[0]
    assert latent.shape == (1, 4, 32, 32)
    assert decoded.shape == image.shape
    with torch.inference_mode():
        whole = nodes.VAEDecode().decode(vae, {"samples": latent})[0]
    assert (decoded - whole).abs().mean() < 0.05


def test_clip_is_our_text_encoder_and_the_hosts_object(folder):
    checkpoint = read_asset(folder, TEXT_ENCODER)
    encoder, clip = WordTextEncoder(WORDS), load_clip(checkpoint)
    encoder.load_state_dict(checkpoint.tensors)
    text = "a red apple on blue background"
    with torch.inference_mode():
        found = nodes.CLIPTextEncode().encode(clip.clone(), text)[0]
        torch.testing.assert_close(found[0][0], encoder(torch.tensor([encoder.tokenize(text)])))
        assert nodes.CLIPSetLastLayer().set_last_layer(clip, -2)[0].tokenize(text) == clip.tokenize(text)
        assert nodes.ConditioningZeroOut().zero_out(found)[0][0][0].abs().sum() == 0


def test_words_that_it_does_not_know_or_read_are_named_once(folder, caplog):
    clip = load_clip(read_asset(folder, TEXT_ENCODER))
    with caplog.at_level(logging.WARNING, logger="controlnet_kit"):
        clip.tokenize("red apple")
        clip.tokenize("a red zebra and a " + "blue " * 12)
    assert [record.getMessage() for record in caplog.records] == [
        "The embedded base does not know the words: a, zebra, and.",
        "The embedded base reads 16 words; left out: blue.",
    ]


def test_the_node_hands_out_all_three(folder, monkeypatch):
    monkeypatch.setattr(tiny, "ASSETS", folder)
    model, clip, vae = run(tiny.LoadTinyBase)
    assert isinstance(model, comfy.model_patcher.ModelPatcher)
    assert isinstance(clip, comfy.sd.CLIP)
    assert isinstance(vae, comfy.sd.VAE)


@pytest.mark.parametrize("name", [UNET, VAE, TEXT_ENCODER])
def test_missing_files_are_named(tmp_path, name):
    with pytest.raises(CheckpointError, match=f"The embedded base lacks {name} in "):
        read_asset(tmp_path, name)


def test_damaged_files_are_named(folder, tmp_path):
    for load, name in ((load_model, UNET), (TinyVAE, VAE), (load_clip, TEXT_ENCODER)):
        checkpoint = read_asset(folder, name)
        tensors = dict(list(checkpoint.tensors.items())[1:])
        save_file(tensors, tmp_path / name, metadata=checkpoint.metadata)
        with pytest.raises(CheckpointError, match=name):
            load(read_asset(tmp_path, name))
