"""`MergeControlNet`: for another base, as a Control-LoRA and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError, FamilyMismatchError
from controlnet_kit.cn_core.files.checkpoint import Checkpoint
from controlnet_kit.cn_core.files.convert import transfer
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.nodes.control import KitControl
from controlnet_kit.nodes.merge import EXTRACT, MERGE, TRANSFER, MergeControlNet
from controlnet_kit.nodes.save import contents
from controlnet_kit.nodes.sources.control_lora import load_control_lora
from random_loras import control_lora_tensors
from random_models import (
    SHAPES,
    control_tensors,
    controlnet_file,
    hint_image,
    host_model,
    our_apply,
    our_load,
    prompts,
    run,
    sample,
    unet_tensors,
)

SHAPE = SHAPES["tiny"]
SIZE = {"height": 64, "width": 64}


@pytest.fixture(scope="module")
def models():
    """Two bases of one family."""
    return [host_model(SHAPE, unet_tensors(SHAPE.config, seed)) for seed in (2, 5)]


@pytest.fixture
def control():
    return our_load(controlnet_file(control_tensors(SHAPE.config), "merged_shuffle.safetensors"))


def merge(control, mode, model, **options):
    return run(MergeControlNet, control_net=control, mode=mode, model=model, **options)


def weights(control):
    return contents(control).tensors


def difference(left, right) -> float:
    assert left.keys() == right.keys()
    return max(float((left[key].float() - right[key].float()).abs().max()) for key in left if left[key].numel())


def test_transfer_is_the_cores_and_leads_back(control, models):
    before = {key: tensor.clone() for key, tensor in weights(control).items()}
    moved, report = merge(control, TRANSFER, models[0], new_model=models[1])
    bases = [unet_tensors(SHAPE.config, seed) for seed in (2, 5)]
    assert difference(weights(moved), transfer(before, *bases)) == 0
    copied = sum(key in bases[0] for key in before)
    assert report == f"merged_shuffle.safetensors: {copied} of {len(before)} weights moved with the base model."
    back, _ = merge(moved, TRANSFER, models[1], new_model=models[0])
    assert difference(weights(back), before) < 1e-6
    assert difference(weights(control), before) == 0, "what came in stays as it is"
    assert moved.global_average_pooling


def test_a_transferred_controlnet_runs(control, models):
    moved, _ = merge(control, TRANSFER, models[0], new_model=models[1])
    image = hint_image(**SIZE)
    controlled = sample(models[1], *our_apply(*prompts(SHAPE), moved, image))
    assert controlled.isfinite().all()
    assert not torch.equal(controlled, sample(models[1], *prompts(SHAPE)))


def test_metadata_about_the_old_base_goes(control, models):
    known = ControlNetMetadata(condition="canny edges", base_name="tiny", fidelity={"edge_f1": 0.8})
    control.source.metadata.update(known.to_strings())
    moved, _ = merge(control, TRANSFER, models[0], new_model=models[1])
    assert ControlNetMetadata.from_strings(contents(moved).metadata) == ControlNetMetadata(condition="canny edges")


def test_a_control_lora_of_full_rank_is_the_controlnet(control, models):
    lora, report = merge(control, EXTRACT, models[0], rank=1024)
    assert (lora.source.kind, lora.source.metadata) == ("Control-LoRA", contents(control).metadata)
    assert report.startswith("merged_shuffle.safetensors: a Control-LoRA of rank 1024, ")
    back, report = merge(lora, MERGE, models[0])
    assert difference(weights(back), weights(control)) < 2e-3  # half precision
    assert report == f"merged_shuffle.safetensors: a ControlNet of {len(weights(control))} weights."
    image = hint_image(**SIZE)
    lora_run, full_run = (sample(models[0], *our_apply(*prompts(SHAPE), c, image)) for c in (lora, back))
    torch.testing.assert_close(lora_run, full_run, rtol=1e-2, atol=1e-2)


def test_a_lower_rank_is_smaller_and_says_what_it_loses(control, models):
    lora, report = merge(control, EXTRACT, models[0], rank=4)
    small, large = (sum(t.numel() * t.element_size() for t in weights(c).values()) for c in (lora, control))
    assert small < large / 4
    assert "of rank 4, " in report and "loses at most" in report


def test_what_a_mode_needs(control, models):
    lora = KitControl(
        load_control_lora(
            Checkpoint(path=Path("lora.safetensors"), tensors=control_lora_tensors(SHAPE.config), metadata={})
        )
    )
    with pytest.raises(ControlNetKitError, match=r"needs two models, connect the other one to new_model"):
        merge(control, TRANSFER, models[0])
    with pytest.raises(ControlNetKitError, match=r"needs a Control-LoRA, and merged_shuffle.\w+ is a ControlNet"):
        merge(control, MERGE, models[0])
    for mode in (TRANSFER, EXTRACT):
        with pytest.raises(ControlNetKitError, match=r"needs a ControlNet, and lora.safetensors is a Control-LoRA"):
            merge(lora, mode, models[0], new_model=models[1])
    other = host_model(SHAPES["SD 1.x"])
    with pytest.raises(FamilyMismatchError, match=r"merged_shuffle.safetensors has .* and the new base model has"):
        merge(control, TRANSFER, models[0], new_model=other)
    with pytest.raises(FamilyMismatchError, match=r"merged_shuffle.safetensors changes .*, and the base model has"):
        merge(control, EXTRACT, other)
