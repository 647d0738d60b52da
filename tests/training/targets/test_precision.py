"""The frozen UNet computes in its own type without autocast; what is trained has autocast, whatever wraps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.networks.layers import Block
from controlnet_kit.training.loop import Trainer
from controlnet_kit.training.watch.sampling import predict
from torch import Tensor, nn
from training_runs import RandomSamples, configured, trainer

BATCH = RandomSamples().batch(torch.arange(2), torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.bool))
NOISY, TIMESTEPS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 900])
TARGETS: dict[str, dict[str, Any]] = {
    "a ControlNet": {},
    "a few links": {"links": "shallow"},
    "latents": {"hint_encoder": "vae"},
    "a decoder": {"unlock_decoder_at": 1},
    "a Control-LoRA": {"kind": "control_lora", "rank": 4},
    "an LLLite": {"kind": "lllite", "rank": 4},
    "a UNet": {"kind": "input_channels", "hint_encoder": "vae"},
}
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


class Ended(nn.Module):
    """A wrapper that ends autocast, as DeepSpeed's does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        """As the module, in the types that come in."""
        with torch.autocast("cpu", enabled=False):
            return self.module(*inputs)


def moved(folder: Path, target: dict[str, Any], **hardware: Any) -> Trainer:
    """A run in bf16 of which nothing trained is zero, as in its second step."""
    run = trainer(configured(folder, target=target, hardware={"precision": "bf16", **hardware}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in run.target.module.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    run.target.begin(1)
    return run


def predicted(run: Trainer, module: nn.Module) -> Tensor:
    """With the run's autocast around it."""
    with run.computation.autocast():
        return run.target.predict(module, run.base.unet, BATCH, NOISY, TIMESTEPS)


def seen(run: Trainer) -> tuple[set[tuple[bool, torch.dtype]], set[bool]]:
    """Whether autocast was on, and the type, in the frozen UNet's blocks; and whether it was where weights learn."""
    frozen, trained = set[tuple[bool, torch.dtype]](), set[bool]()
    for module in run.base.unet.modules():
        if isinstance(module, Block):
            module.register_forward_hook(
                lambda _, inputs, __: frozen.add((torch.is_autocast_enabled("cpu"), inputs[0].dtype))
            )
    for module in run.target.module.modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            module.register_forward_hook(lambda *_: trained.add(torch.is_autocast_enabled("cpu")))
    predicted(run, run.module)
    return frozen, trained


@each_target
def test_the_frozen_unet_has_no_autocast_and_what_is_trained_has(tmp_path: Path, target: dict[str, Any]) -> None:
    assert seen(moved(tmp_path / "half", target)) == ({(False, torch.bfloat16)}, {True})


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_an_8_bit_base_computes_in_the_type_of_its_scales(tmp_path: Path, kind: str) -> None:
    assert seen(moved(tmp_path, {}, base_dtype=kind)) == ({(False, torch.bfloat16)}, {True})


def test_a_float32_base_keeps_autocast(tmp_path: Path) -> None:
    frozen, trained = seen(moved(tmp_path, {}, base_dtype="fp32"))
    assert {on for on, _ in frozen} == trained == {True}


@each_target
@pytest.mark.parametrize("base_dtype", ["auto", "fp32"])
def test_a_wrapper_may_end_autocast(tmp_path: Path, target: dict[str, Any], base_dtype: str) -> None:
    run = moved(tmp_path, target, base_dtype=base_dtype)
    assert torch.equal(predicted(run, Ended(run.module)), predicted(run, run.module))


@each_target
def test_half_precision_is_near_the_whole_one(tmp_path: Path, target: dict[str, Any]) -> None:
    half, whole = moved(tmp_path, target), moved(tmp_path, target, precision="fp32")
    near, wanted = predicted(half, half.module).float(), predicted(whole, whole.module)
    assert 0 < (near - wanted).norm() / wanted.norm() < 0.02


def test_the_base_alone_is_what_an_untrained_control_leaves_it(tmp_path: Path) -> None:
    run = trainer(configured(tmp_path, hardware={"precision": "bf16"}))
    alone, controlled = (predict(run, module, BATCH, NOISY, TIMESTEPS) for module in (None, run.module))
    assert alone.dtype == torch.float32 and torch.equal(alone, controlled)
