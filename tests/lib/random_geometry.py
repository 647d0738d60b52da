"""A Depth Anything 3 of the host's own class with random weights, in place of a download of hundreds of megabytes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from comfy_in_process import make_importable
from comfy_server import Installation
from safetensors.torch import save_file

START = 4
"""The layer from which on views see each other, as in the small and the base model."""


def save_random_depth_anything(path: Path, installation: Installation) -> None:
    """Write a checkpoint (44 MB) that the host's LoadDA3Model takes for the small model."""
    if "comfy" not in sys.modules:
        make_importable(installation)
    import comfy.ops
    from comfy.ldm.depth_anything_3.model import DepthAnything3Net

    model = DepthAnything3Net(
        backbone_name="vits",
        out_layers=(5, 7, 9, 11),
        cat_token=True,
        head_type="dualdpt",
        head_dim_in=768,
        head_output_dim=2,
        head_features=16,
        head_out_channels=(16, 16, 16, 16),
        has_cam_dec=True,
        alt_start=START,
        rope_start=START,
        qknorm_start=START,
        operations=comfy.ops.disable_weight_init,
    )
    torch.manual_seed(1)
    weights = {name: torch.randn(value.shape) * 0.05 for name, value in model.state_dict().items()}
    for name in weights:
        if ("norm" in name and name.endswith("weight")) or "layer_scale" in name:
            weights[name] += 1
        if name.startswith("head."):
            weights[name] *= 2  # a surface that is not flat
    weights["cam_dec.fc_fov.0.weight"].zero_()
    weights["cam_dec.fc_fov.0.bias"].fill_(1)  # radians
    save_file({name: value.half() for name, value in weights.items()}, path)
