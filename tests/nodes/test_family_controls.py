"""The host's controls behind ours: copies, cancelled runs, devices, dtypes, other packs' controls, wrong models."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import comfy.controlnet
import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError, ControlNetKitError, FamilyMismatchError
from controlnet_kit.cn_core.modulation.settings import Modulation
from controlnet_kit.nodes.control import as_kit
from controlnet_kit.nodes.sources.host import kept_in
from controlnet_kit.nodes.sources.source import Call
from host_family import Controls, StandInVAE, assert_equal, flat
from random_families import FAMILIES
from random_models import SHAPES, control_tensors, controlnet_file, hint_image, our_load
from random_transformers import hunyuan_control, sd3_tensors
from torch import Tensor


@pytest.mark.parametrize("name", ["SD3.5 canny", "Flux Union", "Qwen Fun", "HunyuanDiT", "Control-LoRA", "T2I-Adapter"])
def test_runs_are_alike_with_a_cancel_between(name):
    family = FAMILIES[name]()
    controlled, image = family.controlled(hint_image()), hint_image()
    first = family.asked(controlled)
    family.asked(controlled, size=(6, 8), finish=False)
    assert_equal(family.asked(controlled), first)
    control = controlled[0][0][1]["control"]
    assert (control.run, control.source.given, control.source.control.cond_hint) == (None, None, None)
    twin = control.copy()
    assert twin.source.control is not control.source.control
    assert twin.get_models() == control.get_models()
    again = [[[tokens, {**entry, "control": twin}] for tokens, entry in prompt] for prompt in controlled]
    assert_equal(family.asked(again), first)
    assert_equal(family.asked(family.host_controlled(image)), first)


@pytest.mark.parametrize("name", ["SD3", "SD3.5 depth", "Flux Union", "Qwen Fun", "T2I-Adapter"])
def test_clones_for_another_device(name):
    family = FAMILIES[name]()
    controlled = family.controlled(hint_image())
    clone = controlled[0][0][1]["control"].deepclone_multigpu(torch.device("cpu"))
    again = [[[tokens, {**entry, "control": clone}] for tokens, entry in prompt] for prompt in controlled]
    assert clone.source.network is not controlled[0][0][1]["control"].source.network
    assert_equal(family.asked(again), family.asked(controlled))


class Halves(comfy.controlnet.ControlBase):
    """The least that another pack's control can be."""

    def get_control(self, x_noisy: Tensor, t: Tensor, cond: Any, batched_number: int, transformer_options: Any) -> Any:  # noqa: ARG002
        """A residual of the latent's size, half of the hint's mean."""
        hint: Any = self.cond_hint_original
        return {"output": [0.5 * self.strength * hint.mean() * torch.ones_like(x_noisy)]}

    def copy(self) -> Halves:
        """As the host's do."""
        twin = Halves()
        self.copy_to(twin)
        return twin


def test_what_cannot_be_cloned_is_said():
    for control in (FAMILIES["Control-LoRA"]().controls.host, Halves()):
        with pytest.raises(ControlNetKitError, match=r"ComfyUI cannot run The ControlNet on several devices: use"):
            as_kit(control).deepclone_multigpu(torch.device("cpu"))


def test_calibration_of_a_transformer_is_refused():
    family = FAMILIES["Flux XLabs"]()
    with pytest.raises(ControlNetKitError, match="controls a transformer, and calibration measures UNets only"):
        family.controlled(hint_image(), options=Modulation(calibrate=True))


def test_a_control_of_another_pack():
    family = replace(FAMILIES["Stable Diffusion"](), controls=Controls(host=Halves(), ours=Halves()))
    image = hint_image()
    right = torch.cat([torch.zeros(1, 8, 4), torch.ones(1, 8, 4)], dim=2)
    found = family.asked(family.controlled(image, 0.5, effect_mask=right))
    assert found is not None
    assert float(found["output"][0][0, 0, 0, 7]) == pytest.approx(0.25 * float(image.mean()))
    assert not found["output"][0][..., :4].any()
    assert (found["input"], found["middle"]) == ([], [])


class Silent(Halves):
    """Acts in another way."""

    def get_control(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def copy(self) -> Silent:
        """As the host's do."""
        twin = Silent()
        self.copy_to(twin)
        return twin


def test_a_control_without_residuals_is_said(caplog):
    family = replace(FAMILIES["Stable Diffusion"](), controls=Controls(host=Silent(), ours=Silent()))
    assert torch.equal(family.sampled(family.controlled(hint_image(), 0.5)), family.sampled(family.base.prompts))
    messages = [record.getMessage() for record in caplog.records if "(Silent) gave no residuals" in record.getMessage()]
    assert len(messages) == 1


@pytest.mark.parametrize(
    ("control", "base", "message"),
    [
        ("SD3", "Qwen Fun", "is a ControlNet for SD 3 (tokens of width 128); the model (qwen_image) has 64"),
        ("Flux XLabs", "Stable Diffusion", "is a ControlNet for Flux; the model (BaseModel) is a UNet"),
        ("Qwen Fun", "Flux XLabs", "is a ControlNet for Qwen-Image (tokens of width 64); the model (flux) has 128"),
        ("Stable Diffusion", "SD3", "The ControlNet is an SD-shaped ControlNet (context 64); the model (SD3) is not a"),
    ],
)
def test_a_model_of_another_family(control, base, message):
    family = replace(FAMILIES[control](), base=FAMILIES[base]().base, vae=StandInVAE(16))
    with pytest.raises(FamilyMismatchError, match=re.escape(message)):
        family.sampled(family.controlled(hint_image()))
    with pytest.raises(FamilyMismatchError, match=re.escape(message)):
        family.controlled(hint_image(), model=family.base.model)


DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8_e4m3fn": torch.float8_e4m3fn}
ERRORS = {"fp16": 2e-3, "bf16": 2e-2, "fp8_e4m3fn": 0.15}
"""Of residuals, relative: the formats have 11, 8 and 4 bits."""


def assert_near(found: list[Tensor], expected: list[Tensor], error: float) -> None:
    assert max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)) < error


@pytest.mark.parametrize("name", ["SD3", "SD3.5 canny", "SD3.5 depth", "Flux MistoLine", "Flux Union", "Qwen Fun"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_to_keep_weights_in(name, dtype):
    family = FAMILIES[name]()
    ours: Any = family.controls.ours
    control = our_load(ours.source.name, dtype=dtype)
    control.extra_args = ours.extra_args
    kept = replace(family, controls=Controls(host=family.controls.host, ours=control))
    assert {parameter.dtype for parameter in control.source.network.parameters()} == {DTYPES[dtype]}
    found, plain = (flat(each.asked(each.controlled(hint_image()))) for each in (kept, family))
    assert_near(found, plain, ERRORS[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_for_our_own_network(dtype):
    tiny, image = FAMILIES["Stable Diffusion"](), hint_image()
    file = controlnet_file(control_tensors(SHAPES["tiny"].config), "to_keep.safetensors")
    control = our_load(file, dtype=dtype)
    assert {parameter.dtype for parameter in control.source.network.parameters()} == {DTYPES[dtype]}
    kept = replace(tiny, controls=Controls(host=tiny.controls.host, ours=control))
    assert_near(flat(kept.asked(kept.controlled(image))), flat(tiny.asked(tiny.controlled(image))), ERRORS[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_for_hunyuandit(dtype):
    # the host's loader knows the public width only, so what ours does after it is done here
    family, control = FAMILIES["HunyuanDiT"](), kept_in(hunyuan_control(), DTYPES[dtype], name="hunyuan")
    kept = replace(family, controls=Controls(host=control, ours=control))
    found, plain = (flat(each.asked(each.controlled(hint_image()))) for each in (kept, family))
    assert_near(found, plain, ERRORS[dtype])


def test_a_dtype_that_the_host_has_no_choice_of_is_said(caplog):
    control = FAMILIES["T2I-Adapter"]().controls.host
    assert kept_in(control, torch.float16, name="adapter.pth") is control
    assert "adapter.pth: ComfyUI takes its weights to the dtype of the model, and not to torch.float16." in caplog.text


def test_a_file_that_the_hosts_loader_fails_on():
    tensors = sd3_tensors()
    del tensors["pos_embed.proj.weight"]
    file = controlnet_file(tensors, "damaged.safetensors")
    with pytest.raises(CheckpointError, match=r"damaged.safetensors looks like a ControlNet of another kind, and Co"):
        our_load(file)


def test_pooled_residuals():
    family = FAMILIES["Stable Diffusion"]()
    family.controls.host.global_average_pooling = True
    image, size = hint_image(), (17, 15)
    expected = family.asked(family.host_controlled(image), size=size)
    assert_equal(family.asked(family.controlled(image), size=size), expected)
    assert all(torch.equal(residual, residual[..., :1, :1].expand_as(residual)) for residual in flat(expected))


def test_some_chunks_of_an_evaluation():
    rows = torch.arange(6.0)
    cond: dict[str, Any] = {
        "y": rows[:, None],
        "guidance": rows,
        "attention_mask": rows[:, None] > 2,
        "mask": torch.ones(1, 4),
    }
    cond |= {"ref_latents": [rows, torch.ones(1)], "frame_rate": 24.0, "scale": torch.tensor(2.0), "method": "offset"}
    options = {"cond_or_uncond": [0, 1, 0], "uuids": ["a", "b", "c"], "other": 1}
    call = Call(x=rows.view(6, 1, 1, 1), sigmas=rows, cond=cond, chunks=3, options=options, sampling=None)
    part, chosen = call.of_chunks([0, 2]), torch.tensor([0, 1, 4, 5])
    assert (part.batch, part.chunks) == (2, 2)
    assert part.options == {"cond_or_uncond": [0, 0], "uuids": ["a", "c"], "other": 1}
    for whole, some in ((call.x, part.x), (rows, part.sigmas), (cond["ref_latents"][0], part.cond["ref_latents"][0])):
        assert torch.equal(whole[chosen], some)
    assert all(torch.equal(part.cond[key], cond[key][chosen]) for key in ("y", "guidance", "attention_mask"))
    assert all(part.cond[key] is cond[key] for key in ("mask", "frame_rate", "scale", "method"))
    assert part.cond["ref_latents"][1] is cond["ref_latents"][1]
