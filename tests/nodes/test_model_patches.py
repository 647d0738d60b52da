"""Controls that patch the model: which files they are, and that they act as the host's own nodes make them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from comfy_extras.nodes_controlnet import ControlNetInpaintingAliMamaApply, SetUnionControlNetType
from controlnet_kit.cn_core.errors import CheckpointError, ControlNetKitError, FamilyMismatchError, HintError
from controlnet_kit.nodes.model_patches import ANIMA, KINDS, QWEN, UNI3C, Z_IMAGE, load_patch, patch_kind
from random_models import SHAPES, control_tensors, hint_image, host_apply, host_model, prompts
from random_patches import (
    Patched,
    anima_tensors,
    control,
    host_apply_patch,
    latent_shape,
    our_apply_patch,
    patch_file,
    random_patched,
    sample_patched,
    uni3c_tensors,
    z_image_control,
)
from torch import Tensor


@pytest.fixture(scope="module", params=[Z_IMAGE, QWEN, UNI3C, ANIMA])
def patched(request: pytest.FixtureRequest) -> Patched:
    return random_patched(request.param)


@pytest.fixture(scope="module")
def z_image() -> Patched:
    return random_patched(Z_IMAGE)


@pytest.fixture(scope="module")
def anima() -> Patched:
    return random_patched(ANIMA)


@pytest.mark.parametrize(("batch", "size", "strength"), [(1, (8, 8), 1.0), (2, (17, 15), 0.7)])
def test_the_default_is_the_hosts_own_node(patched, batch, size, strength):
    shape, image = latent_shape(patched.kind, batch, size), hint_image(height=8 * size[0] + 8, width=8 * size[1])
    result = sample_patched(our_apply_patch(patched, image, strength), shape)
    assert torch.equal(result, sample_patched(host_apply_patch(patched, image, strength), shape))
    assert not torch.equal(result, sample_patched(patched.model, shape))


@pytest.mark.parametrize(
    "shape",
    [
        {"n_control_layers": 3, "additional_in_dim": 17, "refiner_control": True},
        {"n_control_layers": 15, "additional_in_dim": 17, "refiner_control": True},
        {"n_control_layers": 15, "additional_in_dim": 17, "refiner_control": True, "broken": True},
    ],
)
def test_the_other_versions_of_z_image(z_image, shape):
    patched = replace(z_image, control=z_image_control(**shape))
    result = sample_patched(our_apply_patch(patched, hint_image()), latent_shape(Z_IMAGE))
    assert torch.equal(result, sample_patched(host_apply_patch(patched, hint_image()), latent_shape(Z_IMAGE)))
    top = torch.cat([torch.ones(1, 32, 64), torch.zeros(1, 32, 64)], dim=1)
    assert not torch.equal(
        result, sample_patched(our_apply_patch(patched, hint_image(), mask=top), latent_shape(Z_IMAGE))
    )


def test_chains(patched):
    shape, images = latent_shape(patched.kind), (hint_image(seed=30), hint_image(seed=31))
    second = control(patched.kind, seed=6)

    def chained(first_apply: Any, second_apply: Any) -> Tensor:
        model = first_apply(patched, images[0])
        return sample_patched(second_apply(replace(patched, model=model, control=second), images[1], 0.5), shape)

    expected = chained(host_apply_patch, host_apply_patch)
    assert torch.equal(chained(our_apply_patch, host_apply_patch), expected)
    assert torch.equal(chained(host_apply_patch, our_apply_patch), expected)
    assert torch.equal(chained(our_apply_patch, our_apply_patch), expected)


def test_the_network_is_loaded_with_the_model(patched):
    model = our_apply_patch(patched, hint_image())
    assert patched.control.patcher in model.model_patches_models()
    assert "patches" not in patched.model.model_options["transformer_options"]
    assert not patched.model.callbacks


def test_nodes_for_other_controls_say_what_to_use(anima):
    image, mask = hint_image(), torch.ones(1, 72, 64)
    conditionings = prompts(SHAPES["tiny"])
    message = re.escape("random_5.safetensors (Anima LLLite) patches the model instead of the conditioning")
    with pytest.raises(ControlNetKitError, match=message):
        host_apply(*conditionings, anima.control, image)
    with pytest.raises(ControlNetKitError, match=message):
        SetUnionControlNetType.execute(anima.control, "auto")
    with pytest.raises(ControlNetKitError, match=message):
        ControlNetInpaintingAliMamaApply.execute(*conditionings, anima.control, None, image, mask, 1.0, 0.0, 1.0)


def test_a_model_of_another_family(z_image, anima):
    with pytest.raises(
        FamilyMismatchError, match="z_image is a Z-Image Fun control, for models of the type lumina2; the "
    ):
        our_apply_patch(replace(z_image, model=host_model(SHAPES["tiny"])), hint_image())
    with pytest.raises(FamilyMismatchError, match="type lumina2; the model is of the type anima"):
        our_apply_patch(replace(z_image, model=anima.model), hint_image())


def test_a_model_of_another_width(anima):
    tensors = anima_tensors(width=64)
    other = load_patch(patch_file(tensors, "narrow.safetensors"), ANIMA)
    with pytest.raises(FamilyMismatchError, match="control for tokens of width 64; the model's have 96"):
        our_apply_patch(replace(anima, control=other), hint_image())


def test_a_vae_that_is_missing_or_wrong(z_image, anima):
    with pytest.raises(ControlNetKitError, match="takes its hint as a latent: connect the `vae` of ApplyControlNet"):
        our_apply_patch(replace(z_image, vae=None), hint_image())
    with pytest.raises(ControlNetKitError, match="latents of 16 channels in 3 dimensions; the model's have 16 in 2"):
        our_apply_patch(replace(z_image, vae=anima.vae), hint_image())
    our_apply_patch(replace(anima, vae=None), hint_image())


def test_hints_and_masks_that_cannot_be_used(z_image):
    with pytest.raises(HintError, match="NaN or infinite"):
        our_apply_patch(z_image, torch.full((1, 8, 8, 3), float("nan")))
    with pytest.raises(ControlNetKitError, match="mask has NaN"):
        our_apply_patch(z_image, hint_image(), mask=torch.full((1, 8, 8), float("nan")))
    with pytest.raises(
        HintError, match=re.escape("qwen (Qwen DiffSynth) takes one hint; the image has 2. Choose one.")
    ):
        our_apply_patch(random_patched(QWEN), hint_image(2))


@pytest.mark.parametrize("kind", list(KINDS))
def test_kinds_by_their_keys(kind):
    assert patch_kind({KINDS[kind].key: None}) == kind


def test_other_files_are_no_model_patches():
    tensors = control_tensors(SHAPES["tiny"].config)
    assert patch_kind(tensors) is None
    assert patch_kind({f"control_model.{key}": tensor for key, tensor in tensors.items()}) is None


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("project_modules.0.zero_conv.weight", "is a SUPIR patch, which is no control. Load it with ModelPatchLoader"),
        ("audio_proj.proj1.weight", "is a MultiTalk patch, .* and connect it to WanInfiniteTalkToVideo."),
        ("feature_embedder.mid_layer_norm.bias", "is a USO style projector, .* connect it to USOStyleReference."),
    ],
)
def test_model_patches_that_are_no_controls(key, message):
    kind = patch_kind({key: None})
    assert kind is not None
    with pytest.raises(CheckpointError, match=f"other.safetensors {message}"):
        load_patch(Path("other.safetensors"), kind)


def test_files_in_another_folder_or_damaged(tmp_path):
    folder = folder_paths.get_folder_paths("model_patches")[0]
    with pytest.raises(CheckpointError, match=re.escape(f"patches the model. Move it to {folder}.")):
        load_patch(tmp_path / "here.safetensors", ANIMA)
    tensors = uni3c_tensors()
    del tensors["proj_out.1.bias"]
    with pytest.raises(
        CheckpointError, match=r"holes\.safetensors looks like Wan Uni3C, and ComfyUI's loader fails on it"
    ):
        load_patch(patch_file(tensors, "holes.safetensors"), UNI3C)
