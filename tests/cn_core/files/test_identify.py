"""What a file holds, of every kind. Networks of full size lie on the meta device: nothing reads their values."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.files.control_lora import extract
from controlnet_kit.cn_core.files.identify import identify
from controlnet_kit.cn_core.files.keymaps import rename
from controlnet_kit.cn_core.files.keymaps.controlnet import controlnet_keys
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import SD1, SD2, SDXL
from controlnet_kit.cn_core.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.cn_core.networks.union import UnionControlNet
from random_loras import ctrlora_base_tensors, ctrlora_tensors, lllite_tensors

META = Backend(device="meta")


def named(*keys, shape=(1,)):
    return {key: torch.empty(shape, device="meta") for key in keys}


@pytest.mark.parametrize(
    ("config", "family"), [(SD1, "SD 1.x"), (SD2, "SD 2.x"), (SDXL, "SDXL")], ids=["SD1", "SD2", "SDXL"]
)
def test_controlnets_of_full_size(on_meta, config, family):
    for layout in ("ldm", "diffusers"):
        kind = identify(on_meta(config, layout=layout), "x.safetensors")
        assert (kind.kind, kind.family, kind.layout, kind.faults) == ("ControlNet", family, layout, None)
        assert (kind.runs, kind.besides) == ("this pack", 0)


def test_missing_weights_are_named(on_meta):
    tensors = on_meta(SD1)
    del tensors["zero_convs.3.0.bias"]
    faults = identify(tensors, "x.safetensors").faults
    assert faults is not None and "weights missing: zero_convs.3.0.bias" in faults


@pytest.mark.parametrize("layout", ["ldm", "diffusers"])
def test_unions(layout):
    tensors = UnionControlNet(SDXL, META, control_types=8).state_dict()
    if layout == "diffusers":
        tensors = rename(tensors, controlnet_keys(SDXL, union=True))
    kind = identify(tensors, "promax.safetensors")
    assert (kind.kind, kind.family, kind.faults) == ("ControlNet-Union", "SDXL", None)
    assert kind.control_types[:2] == ("openpose", "depth") and kind.control_types[-1] == "repaint"


def test_control_loras(weights, randomise, small):
    tensors = extract(weights, randomise(UNet(small)).state_dict(), 4).tensors
    kind = identify(tensors, "control-lora-depth-rank4.safetensors")
    assert (kind.kind, kind.family, kind.faults) == ("Control-LoRA of rank 4", "SD-shaped", None)
    assert "fits all models of its family" in kind.notes[0]
    assert identify(named("lora_controlnet"), "x").kind == "Control-LoRA"


@pytest.mark.parametrize("config", [T2IAdapterConfig(), T2IAdapterConfig(kind="light")], ids=["full", "light"])
def test_t2i_adapters(config):
    kind = identify(T2IAdapter(config, META).state_dict(), "t2iadapter_canny_sd15v2.safetensors")
    assert kind.kind.startswith("T2I-Adapter") and kind.family == "SD 1.x"
    assert (kind.layout, kind.hint_channels, kind.faults) == ("TencentARC", 3, None)


def test_lllites(narrow):
    kind = identify(lllite_tensors(narrow), "kohya_controllllite_xl_canny.safetensors")
    assert (kind.kind, kind.runs, kind.faults) == ("ControlNet-LLLite", "this pack", None)
    broken = identify(named("lllite_unet_elsewhere.down.0.weight"), "x.safetensors")
    assert broken.faults is not None and "has a module lllite_unet_elsewhere" in broken.faults


def test_ctrloras(narrow):
    base = identify(ctrlora_base_tensors(narrow), "ctrlora_sd15_basecn700k.ckpt")
    assert (base.kind, base.layout, base.faults) == ("CtrLoRA, base ControlNet", "ldm with control_model.", None)
    lora = identify(ctrlora_tensors(narrow), "ctrlora_sd15_lineart.ckpt")
    assert (lora.kind, lora.runs) == ("CtrLoRA", "this pack")
    assert "nothing without its base" in lora.notes[0] and "connect a VAE" in lora.notes[1]


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
    kind = identify(named(*keys), "x.safetensors")
    assert (kind.family, kind.runs) == (family, "ComfyUI")


def test_flux_unions():
    tensors = named("controlnet_blocks.0.weight", "controlnet_x_embedder.weight")
    kind = identify({**tensors, **named("controlnet_mode_embedder.weight", shape=(10, 3072))}, "x.safetensors")
    assert (kind.kind, kind.family, kind.control_types[0]) == ("ControlNet-Union", "Flux (InstantX)", "canny")
