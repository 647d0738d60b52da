"""What each target promises: the base itself at first, something else after ten steps, and a file that is read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.files import checkpoint, control_lora
from controlnet_kit.cn_core.files.detect import detect
from controlnet_kit.cn_core.files.identify import identify
from controlnet_kit.training.bases.base import Base
from controlnet_kit.training.errors import ConfigError
from controlnet_kit.training.events import Probed, Validated
from controlnet_kit.training.loop import Trainer
from controlnet_kit.training.samples import Batch
from controlnet_kit.training.targets.make import make_target
from controlnet_kit.training.watch.watchers import watchers
from torch import Tensor
from training_runs import RandomSamples, configured, finished, of_kind, trainer

KINDS: dict[str, dict[str, Any]] = {
    "ControlNet": {},
    "ControlNet, paper": {"hint_encoder": "paper"},
    "CtrLoRA, base ControlNet": {"hint_encoder": "vae"},
    "Control-LoRA of rank 8": {"kind": "control_lora", "rank": 8},
    "ControlNet-LLLite": {"kind": "lllite", "rank": 8},
    "a UNet": {"kind": "input_channels", "hint_encoder": "vae"},
}
TIMESTEPS = torch.tensor([3, 900])


def some_batch(count: int = 2) -> Batch:
    """Pairs of noise."""
    empty = torch.zeros(count, dtype=torch.bool)
    return RandomSamples().batch(torch.arange(count), torch.zeros(count, 4, 8, 8), empty)


def noise(seed: int = 0) -> Tensor:
    """x_t."""
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def predicted(run: Trainer, batch: Batch | None = None) -> Tensor:
    """What the run's networks say of it."""
    with torch.no_grad():
        return run.target.predict(run.module, run.base.unet, batch or some_batch(), noise(), TIMESTEPS)


@pytest.mark.parametrize("name", KINDS)
def test_the_first_step_begins_at_the_base_itself_and_ten_steps_leave_it(tmp_path: Path, base: Base, name: str) -> None:
    alone = base.unet(noise(), TIMESTEPS, some_batch().context)
    run = trainer(configured(tmp_path / "x", target=KINDS[name], run={"steps": 10}), base=base)
    before = predicted(run)
    if name == "a UNet":  # convolutions of more channels are added up in another order
        torch.testing.assert_close(before, alone, rtol=1e-4, atol=1e-4)
    else:
        assert torch.equal(before, alone)
    finished(run)
    after = predicted(run)
    assert (after - alone).abs().max() > 1e-3
    other = RandomSamples().batch(torch.tensor([5, 6]), torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.bool))
    assert not torch.equal(predicted(run, replace(some_batch(), hint=other.hint, latent_hint=other.latent_hint)), after)
    kind = identify(checkpoint.read(tmp_path / "x" / "x.safetensors").tensors, "x")
    assert kind.kind == name.partition(", paper")[0] and kind.faults is None and kind.besides == 0


@pytest.mark.parametrize("name", KINDS)
def test_every_trained_weight_gets_a_gradient_and_the_base_none(tmp_path: Path, base: Base, name: str) -> None:
    run = trainer(configured(tmp_path / "x", target=KINDS[name], run={"steps": 4}), base=base)
    finished(run)
    batch = some_batch()
    run.target.predict(run.module, base.unet, batch, noise(), TIMESTEPS).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in run.module.parameters())
    assert all(p.grad is None and not p.requires_grad for p in base.unet.parameters())
    groups = list(run.target.parameter_groups())
    assert sum(len(group.parameters) for group in groups) == len(list(run.module.parameters()))


@pytest.mark.parametrize("name", KINDS)
def test_it_is_watched_with_the_average_of_its_weights(tmp_path: Path, name: str) -> None:
    """On an 8-bit base with everything recomputed, whose layers all are others than when the target was made."""
    settings = configured(
        tmp_path,
        target=KINDS[name],
        optimizer={"ema": 0.5},
        hardware={"checkpointing": "both", "base_dtype": "int8"},
        validation={"every": 2, "count": 2, "steps": 2, "probe_every": 2},
        run={"steps": 2},
    )
    events = finished(trainer(settings, watchers=watchers(settings.validation)))
    assert len(of_kind(events, Validated)) == len(of_kind(events, Probed)) == 1


def test_a_control_lora_is_the_same_from_its_file(tmp_path: Path, base: Base) -> None:
    config = configured(tmp_path / "x", target=KINDS["Control-LoRA of rank 8"], run={"steps": 4, "file_dtype": "fp32"})
    run = trainer(config, base=base)
    finished(run)
    file = checkpoint.read(tmp_path / "x" / "x.safetensors")
    assert file.tensors["input_blocks.0.0.down"].shape == (4, 4, 3, 3)
    merged = control_lora.merge(file.tensors, base.unet.state_dict())
    path = tmp_path / "whole.safetensors"
    checkpoint.write(path, merged, {})
    again = configured(tmp_path / "y", target={"init": str(path), "keep_hint_encoder": True})
    torch.testing.assert_close(predicted(trainer(again, base=base)), predicted(run), rtol=1e-4, atol=1e-5)
    # and the other way: the nearest Control-LoRA of that ControlNet is itself
    back = configured(
        tmp_path / "z",
        target={"kind": "control_lora", "rank": 8, "init": str(path), "keep_hint_encoder": True},
    )
    torch.testing.assert_close(predicted(trainer(back, base=base)), predicted(run), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["ControlNet", "Control-LoRA of rank 8", "CtrLoRA, base ControlNet"])
@pytest.mark.parametrize("kind", ["controlnet", "control_lora"])
def test_init_takes_a_trunk_with_a_new_hint_encoder(tmp_path: Path, base: Base, name: str, kind: str) -> None:
    finished(trainer(configured(tmp_path / "x", target=KINDS[name], run={"steps": 3, "file_dtype": "fp32"})))
    path = tmp_path / "x" / "x.safetensors"
    target = make_target(base, configured(tmp_path / "y", target={"kind": kind, "init": str(path), "rank": 8}))
    weights = target.tensors(target.module.state_dict())
    before = checkpoint.read(path).tensors
    assert torch.equal(weights["zero_convs.3.0.weight"], before["zero_convs.3.0.weight"])
    assert weights["zero_convs.3.0.weight"].abs().max() > 0
    assert weights["input_hint_block.14.weight"].abs().max() == 0


def test_on_latent_hints_there_is_no_encoder_to_keep(tmp_path: Path, base: Base) -> None:
    latents, pixels = tmp_path / "latents" / "latents.safetensors", tmp_path / "pixels" / "pixels.safetensors"
    run = trainer(configured(latents.parent, target={"hint_encoder": "vae"}, run={"steps": 3, "file_dtype": "fp32"}))
    finished(run)
    finished(trainer(configured(pixels.parent, run={"steps": 1})))
    wanted = {"hint_encoder": "vae", "keep_hint_encoder": True}
    again = trainer(configured(tmp_path / "y", target={**wanted, "init": str(latents)}), base=base)
    assert torch.equal(predicted(again), predicted(run))
    with pytest.raises(ConfigError, match=r"pixels\.safetensors takes hints of 3 channels.*keep_hint_encoder to false"):
        make_target(base, configured(tmp_path / "z", target={**wanted, "init": str(pixels)}))


def test_init_of_an_lllite(tmp_path: Path, base: Base) -> None:
    config = configured(tmp_path / "x", target=KINDS["ControlNet-LLLite"], run={"steps": 3, "file_dtype": "fp32"})
    run = trainer(config, base=base)
    finished(run)
    path = tmp_path / "x" / "x.safetensors"
    again = trainer(configured(tmp_path / "y", target={"kind": "lllite", "init": str(path)}), base=base)
    assert torch.equal(predicted(again), predicted(run))
    with pytest.raises(ConfigError, match="is a ControlLLLite"):
        make_target(base, configured(tmp_path / "y", target={"init": str(path)}))


def test_init_of_another_kind_of_file_says_what_it_is(tmp_path: Path, base: Base) -> None:
    path = tmp_path / "unet.safetensors"
    checkpoint.write(path, base.unet.state_dict(), {})
    for kind in ("controlnet", "control_lora", "lllite"):
        with pytest.raises(ConfigError, match="is a UNet"):
            make_target(base, configured(tmp_path / "y", target={"kind": kind, "init": str(path)}))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"kind": "lllite", "links": "middle"}, "target.links must be 'all' when target.kind is lllite"),
        ({"kind": "lllite", "unlock_decoder_at": 5}, "target.unlock_decoder_at must be 0"),
        ({"kind": "input_channels"}, "target.hint_encoder must be 'vae'"),
        ({"kind": "input_channels", "hint_encoder": "vae", "init": "x"}, "target.init must be 'base'"),
        ({"keep_hint_encoder": True}, "there is none"),
        ({"reconnect_at": 5}, 'target.links is "all"'),
    ],
)
def test_settings_that_a_target_does_not_have(tmp_path: Path, target: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(tmp_path, target=target)


def test_a_control_lora_has_its_own_hint_encoder(tmp_path: Path, base: Base) -> None:
    with pytest.raises(ConfigError, match="hint encoder of its own"):
        make_target(base, configured(tmp_path, target={"kind": "control_lora", "hint_encoder": "vae"}))


@pytest.mark.parametrize("name", ["CtrLoRA, base ControlNet", "a UNet"])
def test_pixels_are_no_latents(tmp_path: Path, base: Base, name: str) -> None:
    run = trainer(configured(tmp_path, target=KINDS[name]), base=base)
    with pytest.raises(ValueError, match="these samples have pixels only"):
        predicted(run, replace(some_batch(), latent_hint=None))


def test_a_gaussian_start_is_no_base(tmp_path: Path, base: Base) -> None:
    alone = base.unet(noise(), TIMESTEPS, some_batch().context)
    for target in ({}, {"kind": "control_lora", "rank": 8}):
        run = trainer(configured(tmp_path / "x", target={**target, "zero_init": "gaussian"}), base=base)
        assert (predicted(run) - alone).abs().max() > 1e-3


def test_detect_reads_what_was_written(tmp_path: Path, base: Base) -> None:
    finished(trainer(configured(tmp_path / "x", run={"steps": 1}), base=base))
    found = detect(checkpoint.read(tmp_path / "x" / "x.safetensors").tensors)
    assert found is not None and found.config == base.unet.config
