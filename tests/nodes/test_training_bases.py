"""What training reads of a checkpoint equals what the host makes of the same weights."""

from __future__ import annotations

from pathlib import Path

import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from controlnet_kit.training.bases import ldm
from safetensors.torch import save_file


def test_the_autoencoder_of_a_file_is_the_hosts(tmp_path: Path):
    settings = {
        "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2],
        "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    torch.manual_seed(2)
    pictures = torch.rand(2, 3, 32, 48)
    original = AutoencoderKL(ddconfig=settings, embed_dim=4)
    for parameter in original.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    tensors = {f"first_stage_model.{key}": value for key, value in original.state_dict().items()}
    save_file(tensors, tmp_path / "base.safetensors")
    codec = ldm.autoencoder(tmp_path / "base.safetensors", tensors, 0.18215)
    with torch.no_grad():
        pixels = 2 * pictures - 1
        moments = original.quant_conv(original.encoder(pixels))
        torch.testing.assert_close(codec.encode(pictures).mean, 0.18215 * moments[:, :4], rtol=1e-4, atol=1e-5)
        z = torch.randn(2, 4, 16, 24)
        expected = (original.decode(z) / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(codec.decode(z * 0.18215), expected, rtol=1e-4, atol=1e-4)
