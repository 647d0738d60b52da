"""What a file tells, of every kind. Networks of full size lie on the meta device: their files are described unread."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from controlnet_kit.cn_core.files.checkpoint import read, write
from controlnet_kit.cn_core.files.conditions import by_name, preprocessor_of
from controlnet_kit.cn_core.files.control_lora import extract
from controlnet_kit.cn_core.files.inspect import describe
from controlnet_kit.cn_core.files.keymaps import rename
from controlnet_kit.cn_core.files.keymaps.controlnet import controlnet_keys
from controlnet_kit.cn_core.files.kinds import kind_of
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import SD1, SD2, SDXL
from controlnet_kit.cn_core.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.cn_core.networks.union import UnionControlNet
from random_loras import lllite_tensors

META = Backend(device="meta")


def saved(folder, tensors, name="control_v11p_sd15_canny.safetensors", metadata=None):
    """A checkpoint from a file that was really written."""
    write(folder / name, tensors, metadata or {})
    return read(folder / name)


def named(*keys, shape=(1,)):
    return {key: torch.empty(shape, device="meta") for key in keys}


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


@pytest.mark.parametrize(
    ("config", "family"), [(SD1, "SD 1.x"), (SD2, "SD 2.x"), (SDXL, "SDXL")], ids=["SD1", "SD2", "SDXL"]
)
def test_controlnets_of_full_size(on_meta, config, family):
    for layout in ("ldm", "diffusers"):
        kind = kind_of(on_meta(config, layout=layout), "x.safetensors")
        assert (kind.kind, kind.family, kind.layout, kind.faults) == ("ControlNet", family, layout, None)
        assert (kind.runs, kind.besides) == ("this pack", 0)


def test_missing_weights_are_named(on_meta):
    tensors = on_meta(SD1)
    del tensors["zero_convs.3.0.bias"]
    faults = kind_of(tensors, "x.safetensors").faults
    assert faults is not None and "weights missing: zero_convs.3.0.bias" in faults


@pytest.mark.parametrize("layout", ["ldm", "diffusers"])
def test_unions(layout):
    tensors = UnionControlNet(SDXL, META, control_types=8).state_dict()
    if layout == "diffusers":
        tensors = rename(tensors, controlnet_keys(SDXL, union=True))
    kind = kind_of(tensors, "promax.safetensors")
    assert (kind.kind, kind.family, kind.faults) == ("ControlNet-Union", "SDXL", None)
    assert kind.control_types[:2] == ("openpose", "depth") and kind.control_types[-1] == "repaint"


def test_control_loras(weights, randomise, small, tmp_path):
    tensors = extract(weights, randomise(UNet(small)).state_dict(), 4).tensors
    report = describe(saved(tmp_path, tensors, "control-lora-depth-rank4.safetensors"))
    assert (report.kind, report.family, report.condition) == ("Control-LoRA of rank 4", "SD-shaped", "depth")
    assert len(report.warnings) == 1 and "fits all models of its family" in report.warnings[0]
    assert kind_of(named("lora_controlnet"), "x").kind == "Control-LoRA"


@pytest.mark.parametrize("config", [T2IAdapterConfig(), T2IAdapterConfig(kind="light")], ids=["full", "light"])
def test_t2i_adapters(config):
    kind = kind_of(T2IAdapter(config, META).state_dict(), "t2iadapter_canny_sd15v2.safetensors")
    assert kind.kind.startswith("T2I-Adapter") and kind.family == "SD 1.x"
    assert (kind.layout, kind.hint_channels, kind.faults) == ("TencentARC", 3, None)


def test_lllites(narrow):
    kind = kind_of(lllite_tensors(narrow), "kohya_controllllite_xl_canny.safetensors")
    assert (kind.kind, kind.runs, kind.faults) == ("ControlNet-LLLite", "this pack", None)
    broken = kind_of(named("lllite_unet_elsewhere.down.0.weight"), "x.safetensors")
    assert broken.faults is not None and "has a module lllite_unet_elsewhere" in broken.faults


@pytest.mark.parametrize(
    ("keys", "family"),
    [
        (("after_proj_list.18.bias",), "HunyuanDiT"),
        (("controlnet_blocks.0.weight", "double_blocks.0.img_attn.norm.key_norm.scale"), "Flux (XLabs)"),
        (
            (
                *("controlnet_blocks.0.weight", "pos_embed_input.proj.weight"),
                "transformer_blocks.0.adaLN_modulation.1.bias",
            ),
            "SD 3.5",
        ),
        (("controlnet_blocks.0.weight", "pos_embed_input.proj.weight"), "SD 3"),
        (("controlnet_blocks.0.weight", "transformer_blocks.0.img_mlp.net.0.proj.weight"), "Qwen-Image (InstantX)"),
        (("controlnet_blocks.0.weight", "controlnet_x_embedder.weight"), "Flux (InstantX)"),
        (("control_blocks.0.after_proj.weight", "control_img_in.weight"), "Qwen-Image (Fun)"),
        (("controlnet_blocks.0.linear.weight",), "Flux (MistoLine)"),
        (("backbone.0.0.weight",), "Stable Cascade"),
        (("control_all_x_embedder.2-1.weight",), "Z-Image"),
    ],
)
def test_families_of_the_host(keys, family):
    kind = kind_of(named(*keys), "x.safetensors")
    assert (kind.family, kind.runs) == (family, "ComfyUI")


def test_flux_unions():
    tensors = named("controlnet_blocks.0.weight", "controlnet_x_embedder.weight")
    kind = kind_of({**tensors, **named("controlnet_mode_embedder.weight", shape=(10, 3072))}, "x.safetensors")
    assert (kind.kind, kind.family, kind.control_types[0]) == ("ControlNet-Union", "Flux (InstantX)", "canny")


def test_what_is_no_controlnet(tmp_path):
    report = describe(saved(tmp_path, {"a.lora_down.weight": torch.zeros(4, 4)}, "style.safetensors"))
    assert (report.kind, report.family, report.runs, report.condition) == ("a LoRA", None, None, None)
    assert report.warnings == (
        "This is no ControlNet but a LoRA: it belongs in another folder, and another node loads it.",
    )


@pytest.mark.parametrize(
    ("name", "preprocessor"),
    [
        *(("control_v11p_sd15_canny.pth", "canny"), ("control_v11f1p_sd15_depth_fp16.safetensors", "depth")),
        *(("control_v11p_sd15_openpose.pth", "openpose"), ("control_v11p_sd15_softedge.pth", "softedge")),
        *(("control_sd15_hed.pth", "softedge"), ("control_v11p_sd15_scribble.pth", "scribble")),
        *(("control_v11p_sd15_lineart.pth", "lineart"), ("control_v11p_sd15s2_lineart_anime.pth", "lineart_anime")),
        *(("control_v11p_sd15_mlsd.pth", "mlsd"), ("control_v11p_sd15_normalbae.pth", "normal")),
        *(("control_v11p_sd15_seg.pth", "segmentation"), ("control_v11f1e_sd15_tile.pth", "tile")),
        *(("control_v11p_sd15_inpaint.pth", "inpaint"), ("control_v11e_sd15_shuffle.pth", "shuffle")),
        *(("control_v11e_sd15_ip2p.pth", None), ("control_v1p_sd15_qrcode_monster.safetensors", None)),
        *(("control_v1p_sd15_brightness.safetensors", "luminance"), ("thibaud_xl_openpose.safetensors", "openpose")),
        *(("sai_xl_sketch_256lora.safetensors", "scribble"), ("kohya_controllllite_xl_blur_anime.safetensors", "blur")),
        *(("t2i-adapter_xl_openpose.safetensors", "openpose"), ("mistoLine_fp16.safetensors", "lineart")),
        *(("controlnet-depth-zoe-sdxl.safetensors", "depth"), ("TTPLANET_Controlnet_Tile_v2.safetensors", "tile")),
        *(("t2iadapter_keypose_sd14v1.pth", "openpose"), ("t2iadapter_color_sd14v1.pth", "color")),
        *(("control_v2p_sd15_mediapipe_face.safetensors", "face_mesh"), ("densepose_v1.pth", "densepose")),
    ],
)
def test_conditions_by_file_name(name, preprocessor):
    found = by_name(name)
    assert found is not None and found.preprocessor == preprocessor
    assert preprocessor_of(found.shows) == preprocessor


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "promax.safetensors", "segovia_bold.pth", ""])
def test_names_that_tell_nothing(name):
    assert by_name(name) is None
