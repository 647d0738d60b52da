"""`SaveControlNet`: what it writes is what was loaded, and it writes nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths
import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.files.checkpoint import Checkpoint, read, write
from controlnet_kit.cn_core.files.convert import to_diffusers
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.cn_core.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig
from controlnet_kit.nodes.control import KitControl
from controlnet_kit.nodes.save import DIFFUSERS, DIFFUSERS_FOLDER, LDM, SaveControlNet
from controlnet_kit.nodes.sources.control_lora import load_control_lora
from controlnet_kit.nodes.sources.ctrlora import load_ctrlora
from controlnet_kit.nodes.sources.lllite import load_lllite
from controlnet_kit.nodes.sources.t2i_adapter import load_t2i_adapter
from random_loras import control_lora_tensors, ctrlora_base_tensors, lllite_tensors
from random_models import SHAPES, control_tensors, controlnet_file, host_load, our_load, randomise_, run

SD1 = SHAPES["SD 1.x"].config
METADATA = ControlNetMetadata(condition="canny edges", preprocessor="canny", base_name="tiny").to_strings()


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch) -> Path:
    """The host's output folder."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    return tmp_path / "output"


@pytest.fixture
def weights():
    return control_tensors(SD1)


@pytest.fixture
def control(weights):
    """One that was loaded from a file with metadata."""
    folder = Path(folder_paths.get_folder_paths("controlnet")[0])
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "saved_from.safetensors", weights, {**METADATA, "modelspec.hash_sha256": "0x1", "note": "kept"})
    return our_load("saved_from.safetensors")


def save(control, prefix="mine", layout=LDM, dtype="keep") -> str:
    return run(SaveControlNet, control_net=control, filename_prefix=prefix, layout=layout, dtype=dtype)[0]


def equal(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_weights_and_metadata_are_kept(control, weights, output):
    path = save(control)
    assert path == "controlnet/mine_00001_.safetensors"
    file = read(output / path)
    assert equal(file.tensors, weights)
    assert file.metadata == {**METADATA, "note": "kept", "format": "pt"}


def test_nothing_is_overwritten_and_folders_are_made(control):
    paths = [save(control), save(control), save(control, "sketches/mine"), save(control, "sketches/mine")]
    assert [Path(path).name for path in paths] == ["mine_00001_.safetensors", "mine_00002_.safetensors"] * 2
    assert paths[2] == "controlnet/sketches/mine_00001_.safetensors"


@pytest.mark.parametrize(
    "prefix",
    [
        *("../mine", "../../mine", "/tmp/mine", "a/../../mine", "..", "", ".", "a/..", "mine\0", "mi\nne"),
        "link/mine",
    ],
)
def test_nothing_is_written_outside_its_folder(control, output, prefix):
    (output / "controlnet").mkdir(parents=True)
    (output / "controlnet" / "link").symlink_to(output.parent)
    before = sorted(output.parent.rglob("*"))
    with pytest.raises(ControlNetKitError, match=r"writes into output/controlnet only, and the prefix is"):
        save(control, prefix)
    assert sorted(output.parent.rglob("*")) == before


@pytest.mark.parametrize(("dtype", "expected"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_dtypes(control, weights, output, dtype, expected):
    file = read(output / save(control, dtype=dtype))
    assert equal(file.tensors, {key: tensor.to(expected) for key, tensor in weights.items()})


def test_half_precision_survives_a_host_that_computes_in_more(weights, output):
    half = {key: tensor.half() for key, tensor in weights.items()}
    control = our_load(controlnet_file(half, "saved_half.safetensors"))
    assert equal(read(output / save(control, dtype="fp16")).tensors, half)


def test_the_host_loads_what_was_saved(control, weights, output):
    name = controlnet_file(read(output / save(control)).tensors, "saved_again.safetensors")
    assert equal(dict(host_load(name).control_model.state_dict()), weights)


def test_diffusers_in_one_file(control, weights, output):
    file = read(output / save(control, layout=DIFFUSERS))
    assert equal(file.tensors, to_diffusers(weights, SD1))
    assert file.metadata["controlnet_kit.condition"] == "canny edges"
    again = our_load(controlnet_file(file.tensors, "saved_diffusers.safetensors"))
    assert equal(dict(again.source.network.state_dict()), weights)


def test_a_folder_for_diffusers(control, weights, output):
    from diffusers.models.controlnets.controlnet import ControlNetModel

    path = save(control, layout=DIFFUSERS_FOLDER)
    assert path == "controlnet/mine_00001_"
    theirs = ControlNetModel.from_pretrained(output / path, low_cpu_mem_usage=False)
    assert equal(dict(theirs.state_dict()), to_diffusers(weights, SD1))
    assert Path(save(control, layout=DIFFUSERS_FOLDER)).name == "mine_00002_"


def test_pooling_goes_by_the_name(weights, output):
    pooled = our_load(controlnet_file(weights, "control_v11e_sd15_shuffle.safetensors"))
    assert save(pooled).endswith("mine_00001_shuffle.safetensors")
    assert save(pooled).endswith("mine_00002_shuffle.safetensors")
    folder = output / save(pooled, layout=DIFFUSERS_FOLDER)
    assert json.loads((folder / "config.json").read_text())["global_pool_conditions"] is True


def adapter_tensors():
    return dict(randomise_(T2IAdapter(T2IAdapterConfig(channels=(32, 64, 64, 64))), 4).state_dict())


@pytest.mark.parametrize(
    ("load", "tensors"),
    [
        pytest.param(load_control_lora, control_lora_tensors(SD1, dtype=torch.float16), id="Control-LoRA"),
        pytest.param(load_t2i_adapter, adapter_tensors(), id="T2I-Adapter"),
        pytest.param(load_lllite, lllite_tensors(SD1), id="LLLite"),
    ],
)
def test_other_kinds_come_back_as_they_were(load, tensors, output):
    control = KitControl(load(Checkpoint(path=Path("other.safetensors"), tensors=tensors, metadata={"note": "kept"})))
    file = read(output / save(control))
    assert equal(file.tensors, tensors)
    assert {key: tensor.shape for key, tensor in file.tensors.items()} == {k: t.shape for k, t in tensors.items()}
    assert file.metadata == {"note": "kept", "format": "pt"}
    with pytest.raises(ControlNetKitError, match=r"other.safetensors is a .*, which has no form in diffusers"):
        save(control, layout=DIFFUSERS)


def test_a_ctrlora_becomes_a_base_of_its_own(output):
    tensors = ctrlora_base_tensors(SD1)
    control = KitControl(load_ctrlora(Checkpoint(path=Path("base.ckpt"), tensors=tensors, metadata={})))
    saved = read(output / save(control)).tensors
    assert equal(saved, {key.removeprefix("control_model."): tensor for key, tensor in tensors.items()})


def test_what_the_host_runs_is_not_saved(weights):
    theirs = host_load(controlnet_file(weights, "hosts.safetensors"))
    with pytest.raises(ControlNetKitError, match=r"ControlNet is run by ComfyUI, and only networks that this"):
        save(theirs)
