"""What a report says of a file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import torch
from controlnet_kit.cn_core.files.checkpoint import read, write
from controlnet_kit.cn_core.files.inspect import describe
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata


def saved(folder, tensors, name="control_v11p_sd15_canny.safetensors", metadata=None):
    """A checkpoint from a file that was really written."""
    write(folder / name, tensors, metadata or {})
    return read(folder / name)


def test_a_report_says_everything(weights, tmp_path):
    metadata = ControlNetMetadata(condition="canny edges", preprocessor="canny", resolution=512, strength=0.9)
    half = {key: tensor.half() for key, tensor in weights.items()}
    checkpoint = saved(tmp_path, half, "edges.safetensors", metadata.to_strings())
    report = describe(checkpoint)
    assert (report.kind, report.family, report.layout, report.runs) == ("ControlNet", "SD-shaped", "ldm", "this pack")
    assert (report.condition, report.preprocessor) == ("canny edges", "canny")
    assert (report.hint_encoder, report.hint_channels) == ("released", 3)
    assert report.parameters == sum(tensor.numel() for tensor in weights.values())
    assert report.dtypes == {"float16": report.parameters}
    assert report.bytes == checkpoint.path.stat().st_size
    assert report.sha256 == hashlib.sha256(checkpoint.path.read_bytes()).hexdigest()
    assert report.metadata == {"condition": "canny edges", "preprocessor": "canny", "resolution": 512, "strength": 0.9}
    assert report.warnings == ()
    assert json.loads(report.to_json())["sha256"] == report.sha256
    lines = report.to_text().splitlines()
    assert lines[:3] == ["edges.safetensors", "kind: ControlNet, run by this pack", "family: SD-shaped"]
    assert {"preprocessor: canny", "hint encoder: released, 3 channels", f"sha256: {report.sha256}"} <= set(lines)


def test_warnings(weights, tmp_path):
    checkpoint = saved(tmp_path, {**weights, "odd.weight": torch.zeros(2)}, "control_v11e_sd15_shuffle.safetensors")
    broken = {"controlnet_kit.resolution": "-5", "controlnet_kit.family": "SDXL"}
    found = "\n".join(describe(replace(checkpoint, metadata=broken)).warnings)
    assert "weights unexpected: odd.weight" in found
    assert "It is in float32" in found
    assert "residuals are averaged" in found
    assert "Its metadata says that it is for SDXL, its weights are those of SD-shaped" in found
    assert "malformed and ignored: resolution" in found
    late = describe(replace(checkpoint, metadata={"controlnet_kit.decoder": "edges-decoder.safetensors"}))
    assert any("load edges-decoder.safetensors into the model too" in warning for warning in late.warnings)
    other = saved(tmp_path, weights, "shuffle-v2.safetensors")
    assert any("not averaged" in warning for warning in describe(other).warnings)


def test_pickles_differences_and_what_lies_beside_the_controlnet(weights, tmp_path):
    path = tmp_path / "control_sd15_hed.pth"
    around = {"model.diffusion_model.out.0.weight": torch.zeros(3), "difference": torch.zeros(())}
    torch.save({**{f"control_model.{key}": tensor for key, tensor in weights.items()}, **around}, path)
    report = describe(read(path))
    assert (report.layout, report.condition, report.preprocessor) == (
        "ldm with control_model.",
        "soft edges",
        "softedge",
    )
    found = "\n".join(report.warnings)
    assert "It is a pickle" in found
    assert "differences from a base model" in found
    assert "1 of its tensors are no part" in found
    assert "missing" not in found


def test_what_is_no_controlnet(tmp_path):
    report = describe(saved(tmp_path, {"a.lora_down.weight": torch.zeros(4, 4)}, "style.safetensors"))
    assert (report.kind, report.family, report.runs, report.condition) == ("a LoRA", None, None, None)
    assert report.warnings == (
        "This is no ControlNet but a LoRA: it belongs in another folder, and another node loads it.",
    )
