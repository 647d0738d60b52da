"""What is in a file. Full-size networks lie on the meta device: names and shapes are all that detection looks at."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from controlnet_kit.cn_core.files.checkpoint import check_strictly, controlnet_tensors
from controlnet_kit.cn_core.files.detect import Detected, describe_foreign, detect
from controlnet_kit.cn_core.files.keymaps import rename
from controlnet_kit.cn_core.files.keymaps.controlnet import controlnet_keys
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import SD1, SD2, SDXL, TINY, UNetConfig
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.cn_core.networks.union import UnionControlNet

FAMILIES = [
    pytest.param(config, family, id=family)
    for config, family in ((SD1, "SD 1.x"), (SD2, "SD 2.x"), (SDXL, "SDXL"), (TINY, "SD-shaped"))
]
LAYOUTS = [
    pytest.param("ldm", "", id="ldm"),
    pytest.param("ldm", "control_model.", id="ldm, prefixed"),
    pytest.param("diffusers", "", id="diffusers"),
]


def named(*keys: str) -> dict[str, torch.Tensor]:
    """A state dict with these keys and empty tensors."""
    return {key: torch.empty(1, device="meta") for key in keys}


@pytest.mark.parametrize(("layout", "prefix"), LAYOUTS)
@pytest.mark.parametrize(("config", "family"), FAMILIES)
def test_families_in_every_layout(on_meta, config, family, layout, prefix):
    assert detect(on_meta(config, layout=layout, prefix=prefix)) == Detected(
        family=family,
        layout=layout,
        prefix=prefix,
        difference=False,
        config=config,
        hint_channels=3,
        hint_encoder_kind="released",
    )


@pytest.mark.parametrize(
    "config",
    [
        replace(SDXL, transformer_depth=(0, 0, 1), transformer_depth_middle=1),  # SDXL "mid"
        replace(SD1, in_channels=9),
        replace(SD1, channel_mult=(1, 2), num_res_blocks=(1, 3), transformer_depth=(0, 2), transformer_depth_middle=3),
        UNetConfig(model_channels=32, channel_mult=(1, 3, 2, 2), context_dim=40),
        UNetConfig(model_channels=384, context_dim=1280, adm_in_channels=2560, use_linear_in_transformer=True),
    ],
)
@pytest.mark.parametrize(("layout", "prefix"), LAYOUTS)
def test_configurations_are_read_from_the_shapes(on_meta, config, layout, prefix):
    found = detect(on_meta(config, layout=layout, prefix=prefix))
    assert found is not None and found.config == config


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        (SD1, [8, 8, 8]),
        (replace(SD1, num_heads=None, use_linear_in_transformer=True), [5, 10, 20]),
        (replace(SD1, num_heads=None, context_dim=1024), [5, 10, 20]),
        (replace(SD1, num_heads=None, model_channels=64), [1, 2, 4]),
        (SD2, [5, 10, 20]),
    ],
)
def test_heads_are_those_that_the_host_assumes(on_meta, config, heads):
    """Eight for SD 1.x and for nothing else; 64 channels each elsewhere."""
    found = detect(on_meta(config))
    assert found is not None
    assert [found.config.heads(found.config.channels(level)) for level in range(3)] == heads


def test_hint_encoders_and_hint_channels(on_meta, small):
    found = detect(on_meta(small, hint_encoder_kind="paper", hint_channels=6))
    assert found is not None
    assert (found.hint_encoder_kind, found.hint_channels) == ("paper", 6)


def test_difference_files(on_meta, small):
    found = detect({**on_meta(small, prefix="control_model."), **named("difference")})
    assert found is not None and found.difference


@pytest.mark.parametrize("part", ["task_embedding", "control_add_embedding.linear_1.weight"])
@pytest.mark.parametrize(("layout", "prefix"), LAYOUTS)
def test_parts_of_a_union_are_left_to_the_host(on_meta, small, part, layout, prefix):
    assert detect({**on_meta(small, layout=layout, prefix=prefix), **named(prefix + part)}) is None


@pytest.mark.parametrize("types", [6, 8])
@pytest.mark.parametrize(("layout", "prefix"), LAYOUTS)
def test_unions_and_their_number_of_types(small, types, layout, prefix):
    network = UnionControlNet(small, Backend(device="meta"), control_types=types)
    file = {prefix + key: tensor for key, tensor in network.state_dict().items()}
    if layout == "diffusers":
        file = rename(file, controlnet_keys(small, union=True))
    found = detect(file)
    assert found is not None
    assert (found.control_types, found.config, found.layout) == (types, small, layout)
    check_strictly(network, controlnet_tensors(file, found), name="union")


def test_a_checkpoint_around_the_controlnet_does_not_matter(on_meta, small):
    """The first released files hold the whole of Stable Diffusion besides."""
    others = named("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight")
    found = detect({**others, **on_meta(small, prefix="control_model.")})
    assert found is not None and found.config == small


@pytest.mark.parametrize(
    "extra",
    [
        *("lora_controlnet", "input_blocks.1.0.lora_layer.up"),
        *("down_blocks.0.motion_modules.0.norm.weight", "lllite_unet.down.weight", "class_embedding.linear_1.weight"),
    ],
)
@pytest.mark.parametrize(("layout", "prefix"), LAYOUTS)
def test_relatives_are_left_to_the_host(on_meta, small, extra, layout, prefix):
    assert detect({**on_meta(small, layout=layout, prefix=prefix), **named(extra)}) is None


@pytest.mark.parametrize(
    ("changed", "shape"),
    [
        ("input_blocks.1.0.in_layers.2.weight", (64, 64, 3, 3)),  # the level's other blocks are 128 wide
        ("input_hint_block.0.weight", (32, 3, 3, 3)),
        ("input_hint_block.0.weight", (16,)),
        ("input_blocks.0.0.weight", (0, 4, 3, 3)),
        ("input_blocks.0.0.weight", (33, 4, 3, 3)),
        ("input_blocks.0.0.weight", ()),
        ("middle_block.1.transformer_blocks.0.attn2.to_k.weight", (64,)),
    ],
)
def test_shapes_that_no_configuration_has(on_meta, changed, shape):
    config = UNetConfig(model_channels=64, channel_mult=(2,), num_res_blocks=(2,), transformer_depth=(1,))
    tensors = on_meta(config)
    assert detect(tensors) is not None
    assert detect({**tensors, changed: torch.empty(shape, device="meta")}) is None


@pytest.mark.parametrize(
    "left_out",
    [
        *("input_blocks.2.1.", "input_blocks.1.0.", "middle_block.1.", "middle_block_out.", "zero_convs."),
        *("input_hint_block.", "time_embed.", "input_blocks.0.0."),
    ],
)
def test_networks_that_lack_a_part(on_meta, left_out):
    """Among them SDXL "small", whose middle block has no attention, and levels of which only some blocks have one."""
    config = UNetConfig(model_channels=64, channel_mult=(1,), num_res_blocks=(2,), transformer_depth=(1,))
    assert detect({k: v for k, v in on_meta(config).items() if not k.startswith(left_out)}) is None


def test_nothing_at_all():
    assert detect({}) is None
    assert describe_foreign({}) == "an unknown file (first keys: none)"


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",), "a LoRA"),
        (("unet.down_blocks.0.attentions.0.to_q.lora_A.weight",), "a LoRA"),
        (("lora_unet_mid_block.hada_w1_a",), "a LoRA"),
        (("encoder.conv_in.weight", "decoder.conv_in.weight"), "a VAE"),
        (("first_stage_model.encoder.conv_in.weight", "first_stage_model.decoder.conv_in.weight"), "a VAE"),
        (("taesd_decoder.1.weight",), "a VAE"),
        (("model.diffusion_model.out.0.weight", "first_stage_model.decoder.conv_in.weight"), "a full checkpoint"),
        (("model.diffusion_model.out.0.weight",), "a diffusion model"),
        (("down_blocks.0.x", "up_blocks.0.x", "time_embedding.linear_1.weight"), "a UNet"),
        (("conv_in.weight", "body.0.block1.weight"), "a T2I-Adapter"),
        (("adapter.body.0.resnets.0.block1.weight",), "a T2I-Adapter"),
        (("body.0.in_conv.weight",), "a T2I-Adapter"),
        (("style_embedding", "ln_post.weight", "proj"), "a T2I style adapter"),
        (("lora_controlnet", "input_hint_block.0.weight"), "a Control-LoRA"),
        (("task_embedding", "control_add_embedding.linear_1.bias"), "a ControlNet-Union"),
        (("controlnet_blocks.0.weight", "controlnet_x_embedder.weight"), "a ControlNet of another kind"),
        (("controlnet_blocks.0.weight", "pos_embed_input.proj.weight"), "a ControlNet of another kind"),
        (("lllite_unet_x.lora_down.weight",), "a ControlLLLite"),
        (("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"), "an IP-Adapter"),
        (("text_model.embeddings.token_embedding.weight",), "a text encoder"),
        (("emb_params",), "a textual inversion"),
        (("a.weight", "b", "c", "d"), "an unknown file (first keys: a.weight, b, c)"),
    ],
)
def test_foreign_files_are_described_and_not_detected(keys, what):
    assert detect(named(*keys)) is None
    assert describe_foreign(named(*keys)) == what


def test_a_unet_is_no_controlnet():
    tensors = UNet(TINY, Backend(device="meta")).state_dict()
    assert detect(tensors) is None
    assert describe_foreign(tensors) == "a UNet"
