"""`LoadControlNet`: which loader a file goes to, and what is said of files that are no ControlNets."""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path

import comfy.controlnet
import comfy.ldm.cascade.controlnet
import folder_paths
import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError
from controlnet_kit.cn_core.networks.autoencoder import Autoencoder
from controlnet_kit.nodes.control import KitControl
from controlnet_kit.nodes.sources.network import NetworkSource
from random_models import SHAPES, control_tensors, controlnet_file, our_load

TINY = SHAPES["tiny"]
LORA = {
    "lora_unet_down_blocks_0.lora_down.weight": torch.zeros(4, 8),
    "lora_unet_down_blocks_0.lora_up.weight": torch.zeros(8, 4),
}
VAE = {"encoder.conv_in.weight": torch.zeros(8, 3, 3, 3), "decoder.conv_in.weight": torch.zeros(8, 4, 3, 3)}


def folder() -> Path:
    return Path(folder_paths.get_folder_paths("controlnet")[0])


def test_our_families_run_our_network():
    control = our_load(controlnet_file(control_tensors(TINY.config), "ours.safetensors"))
    assert isinstance(control, KitControl)
    assert isinstance(control.source, NetworkSource)
    assert (control.source.name, control.source.family) == ("ours.safetensors", "SD-shaped")
    assert control.source.network.config == TINY.config
    assert not control.global_average_pooling


def test_other_families_go_to_the_host_with_one_line(caplog):
    network = comfy.ldm.cascade.controlnet.ControlNet(c_in=3, proj_blocks=[0, 4, 8, 12, 51, 55, 59, 63])
    file = controlnet_file(dict(network.state_dict()), "cascade.safetensors")
    with caplog.at_level(logging.INFO, logger="controlnet_kit"):
        control = our_load(file)
    assert isinstance(control.source.control, comfy.controlnet.T2IAdapter)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("controlnet_kit")] == [
        "cascade.safetensors is of a family that ComfyUI's own loader takes."
    ]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (LORA, "foreign.safetensors is no ControlNet, it looks like a LoRA. Move it to models/loras and use a LoRA"),
        (VAE, "foreign.safetensors is no ControlNet, it looks like a VAE. Move it to models/vae and use Load VAE."),
        ({"some.weight": torch.zeros(1)}, "can load, it looks like an unknown file (first keys: some.weight). Choose"),
        ({"conv_in.weight": torch.zeros(4, 4)}, "foreign.safetensors looks like an unknown file (first keys: conv_in"),
        (dict(Autoencoder().state_dict()), "foreign.safetensors is no ControlNet that this pack or ComfyUI can load"),
    ],
)
def test_files_that_are_no_controlnets(tensors, message):
    with pytest.raises(CheckpointError, match=re.escape(message)):
        our_load(controlnet_file(tensors, "foreign.safetensors"))


def test_a_truncated_file():
    path = folder() / controlnet_file(control_tensors(TINY.config), "cut.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is not a whole safetensors file"):
        our_load(path.name)


def test_a_pickle_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    (folder() / "harmful.pth").write_bytes(pickle.dumps({"state_dict": Harmful()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"harmful\.pth"):
        our_load("harmful.pth")
    assert not (tmp_path / "touched").exists()


def test_missing_and_misshapen_weights_are_named():
    tensors = control_tensors(TINY.config)
    tensors["zero_convs.1.0.weight"] = torch.zeros(3, 3, 1, 1)
    del tensors["middle_block_out.0.bias"]
    with pytest.raises(CheckpointError, match=r"missing: middle_block_out\.0\.bias.*zero_convs\.1\.0\.weight \(3, 3"):
        our_load(controlnet_file(tensors, "holes.safetensors"))


def test_a_difference_without_its_base():
    tensors = {f"control_model.{key}": tensor for key, tensor in control_tensors(TINY.config).items()}
    file = controlnet_file({**tensors, "difference": torch.ones(())}, "difference.safetensors")
    with pytest.raises(CheckpointError, match=r"difference\.safetensors stores its weights as differences"):
        our_load(file)


@pytest.mark.parametrize("name", ["absent.safetensors", "../../../etc/passwd", "/etc/passwd"])
def test_names_are_looked_up_in_the_hosts_folders_only(name):
    with pytest.raises(FileNotFoundError):
        our_load(name)
