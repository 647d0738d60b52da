"""Files: there and back in every layout, strict loading, differences (damaged files: test_damaged_files)."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError, FamilyMismatchError
from controlnet_kit.cn_core.files.checkpoint import (
    check_strictly,
    controlnet_tensors,
    load_strictly,
    read,
    unet_config,
    write,
)
from controlnet_kit.cn_core.files.detect import detect
from controlnet_kit.cn_core.files.keymaps import rename
from controlnet_kit.cn_core.files.keymaps.controlnet import controlnet_keys
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import SD1, SD2, SDXL, TINY
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.unet import UNet

META = Backend(device="meta")


def assert_same(found, expected):
    """The same keys, and bit for bit the same tensors."""
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def detected(tensors):
    """As `detect`, for files that are ControlNets."""
    found = detect(tensors)
    assert found is not None
    return found


class TestThereAndBack:
    @pytest.mark.parametrize("layout", ["ldm", "prefixed", "diffusers"])
    def test_safetensors(self, tmp_path, weights, small, layout):
        stored = {
            "ldm": weights,
            "prefixed": {f"control_model.{key}": value for key, value in weights.items()},
            "diffusers": rename(weights, controlnet_keys(small)),
        }[layout]
        write(tmp_path / "x.safetensors", stored, {"controlnet_kit.condition": "canny"})
        found = read(tmp_path / "x.safetensors")
        assert found.metadata == {"controlnet_kit.condition": "canny"}
        assert_same(controlnet_tensors(found.tensors, detected(found.tensors)), weights)

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"state_dict": t, "epoch": 3}, lambda t: {"model": t}])
    def test_torch(self, tmp_path, weights, wrap, zipped):
        path = tmp_path / "x.pth"
        torch.save(wrap(weights), path, _use_new_zipfile_serialization=zipped)
        assert_same(read(path).tensors, weights)

    def test_what_is_no_tensor_is_left_out(self, tmp_path):
        torch.save({"w": torch.nn.Parameter(torch.ones(2)), "step": 7, "names": ["a"]}, tmp_path / "x.bin")
        found = read(tmp_path / "x.bin").tensors
        assert list(found) == ["w"] and not found["w"].requires_grad

    def test_safetensors_under_another_suffix(self, tmp_path):
        write(tmp_path / "x.bin", {"w": torch.ones(2)}, {})
        assert_same(read(tmp_path / "x.bin").tensors, {"w": torch.ones(2)})

    def test_into_a_network(self, weights, small):
        control = ControlNet(small)
        load_strictly(control, weights, name="x")
        assert_same(control.state_dict(), weights)

    def test_assigned_tensors_keep_their_dtype(self, weights, small):
        control = ControlNet(small, META)
        half = {key: value.half() for key, value in weights.items()}
        load_strictly(control, half, name="x", assign=True)
        assert control.dtype == torch.float16


class TestWriting:
    def test_replaces_whole_and_leaves_nothing_else(self, tmp_path):
        path = tmp_path / "x.safetensors"
        write(path, {"w": torch.zeros(3)}, {})
        write(path, {"w": torch.arange(12).reshape(3, 4).T}, {})
        assert torch.equal(read(path).tensors["w"], torch.arange(12).reshape(3, 4).T)
        assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]

    def test_a_failure_keeps_the_old_file(self, tmp_path):
        path = tmp_path / "x.safetensors"
        write(path, {"w": torch.zeros(3)}, {})
        before = path.read_bytes()
        with pytest.raises(TypeError):
            write(path, {"w": torch.ones(3)}, {"steps": 3})  # type: ignore[dict-item]
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


class TestStrictLoading:
    def test_what_is_wrong_is_named(self, weights, small):
        control = ControlNet(small)
        before = {key: value.clone() for key, value in control.state_dict().items()}
        wrong = {key: value for key, value in weights.items() if not key.startswith("zero_convs.")}
        wrong |= {"extra.weight": torch.ones(1), "middle_block_out.0.bias": torch.ones(7)}
        with pytest.raises(CheckpointError) as error:
            load_strictly(control, wrong, name="canny.safetensors")
        message = str(error.value)
        assert message.startswith("canny.safetensors does not fit ControlNet; weights missing: zero_convs.0.0.weight, ")
        assert " and 5 more; unexpected: extra.weight; " in message
        assert "of another shape: middle_block_out.0.bias (7,) instead of (128,)." in message
        assert message.count(". ") == 1
        assert_same(control.state_dict(), before)

    def test_a_file_is_checked_before_memory_is_taken_on_its_word(self, weights):
        """A few bytes may claim a network of any size."""
        huge = torch.empty(1, dtype=torch.float8_e4m3fn).expand(2**20, 64, 3, 3)
        wrong = {**weights, "input_blocks.3.0.in_layers.2.weight": huge}
        config = detected(wrong).config
        assert config.channel_mult == (1, 2**14)
        with pytest.raises(CheckpointError, match="of another shape"):
            check_strictly(ControlNet(config, META), wrong, name="x")


class TestDifferenceFiles:
    @pytest.fixture
    def base(self, small, randomise):
        """The UNet's weights."""
        return {key: value * 0.5 for key, value in randomise(UNet(small)).state_dict().items()}

    @pytest.fixture
    def stored(self, weights):
        """The file, in half precision."""
        tensors = {f"control_model.{key}": value.half() for key, value in weights.items()}
        return {**tensors, "difference": torch.ones(())}

    def test_the_base_is_added_to_what_was_copied_from_it(self, stored, base, weights, small):
        before = {key: value.clone() for key, value in stored.items()}
        found = controlnet_tensors(stored, detected(stored), base)
        load_strictly(ControlNet(small, META), found, name="x", assign=True)
        for key, value in found.items():
            expected = weights[key].half()
            if key in base:
                expected += base[key].type(torch.float16)  # as the host does it
            assert value.dtype == torch.float16 and torch.equal(value, expected), key
        assert_same(stored, before)

    def test_without_a_base(self, stored):
        with pytest.raises(CheckpointError, match=r"^diff_canny stores its weights as differences.*Connect the model"):
            controlnet_tensors(stored, detected(stored), name="diff_canny")

    def test_with_another_base(self, stored, base):
        with pytest.raises(
            FamilyMismatchError, match=r"of shape \(64, 4, 3, 3\) for .* has one of shape \(320, 4, 3, 3\)"
        ):
            controlnet_tensors(stored, detected(stored), base | {"input_blocks.0.0.weight": torch.ones(320, 4, 3, 3)})
        del base["time_embed.0.bias"]
        with pytest.raises(FamilyMismatchError, match=r"time_embed\.0\.bias, and the base model has no such weight"):
            controlnet_tensors(stored, detected(stored), base)


class TestUNetConfig:
    @pytest.mark.parametrize("config", [SD1, SD2, SDXL, TINY])
    def test_from_a_unet(self, config):
        assert unet_config(UNet(config, META).state_dict()) == config

    def test_from_something_else(self):
        with pytest.raises(CheckpointError, match=r"not of a UNet .* the first ones here are a, b\."):
            unet_config({"a": torch.ones(1), "b": torch.ones(1)})


def test_keys_that_nobody_knows_are_named_when_loading(weights, small):
    stored = rename(weights, controlnet_keys(small)) | {"strange.weight": torch.ones(1)}
    found = controlnet_tensors(stored, detected(stored))
    with pytest.raises(CheckpointError, match=r"unexpected: strange\.weight"):
        load_strictly(ControlNet(small), found, name="x")
