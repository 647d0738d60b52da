"""Links that are cut at first, and a decoder that is unlocked late."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.files import checkpoint
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.cn_core.networks.config import SD1, SDXL, UNetConfig
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.training.bases.base import Base
from controlnet_kit.training.loop import Trainer
from controlnet_kit.training.output import export
from controlnet_kit.training.targets.make import make_target
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from training_runs import RandomSamples, configured, finished, same, trainer

BATCH = RandomSamples().batch(torch.arange(2), torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.bool))
NOISY, TIMESTEPS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 900])


def gradients(run: Trainer) -> dict[str, float]:
    """The largest gradient of each of the run's weights; nothing for those that take no part."""
    run.module.zero_grad(set_to_none=True)
    run.target.predict(run.module, run.base.unet, BATCH, NOISY, TIMESTEPS).square().mean().backward()
    return {name: float(p.grad.abs().max()) for name, p in run.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["controlnet", "control_lora"])
def test_only_the_middle_is_linked_until_it_is_reconnected(tmp_path: Path, kind: str) -> None:
    run = trainer(configured(tmp_path, target={"kind": kind, "links": "middle", "reconnect_at": 4}))
    found = gradients(run)
    assert "control.middle_block_out.0.weight" in found and not any("zero_convs" in name for name in found)
    run.target.begin(4)
    assert sum("zero_convs" in name for name in gradients(run)) == 12
    run.target.begin(3)
    assert not any("zero_convs" in name for name in gradients(run))


@pytest.mark.parametrize("target", [{}, {"kind": "control_lora"}, {"hint_encoder": "vae"}])
def test_only_the_first_blocks_are_linked_and_computed(tmp_path: Path, target: dict[str, Any]) -> None:
    run = trainer(configured(tmp_path, target={**target, "links": "shallow"}, run={"steps": 3}))
    called: list[str] = []
    for name, module in run.target.module.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    finished(run)
    found = gradients(run)
    blocks = {name.split(".")[2] for name in found if ".input_blocks." in name}
    assert blocks == {"0", "1", "2"} and not any("middle" in name for name in found)
    assert "control.input_blocks.2" in called and "control.input_blocks.3" not in called
    assert not any("control.middle" in name for name in called)


def test_what_is_cut_off_adds_nothing_in_the_file(tmp_path: Path) -> None:
    for links in ("middle", "shallow"):
        run = trainer(configured(tmp_path / links, target={"links": links}, run={"steps": 3}))
        finished(run)
        with torch.no_grad():
            cut = run.target.predict(run.module, run.base.unet, BATCH, NOISY, TIMESTEPS)
            setattr(run.target.module, "links", "all")  # noqa: B010, whatever the module is
            assert torch.equal(run.target.predict(run.module, run.base.unet, BATCH, NOISY, TIMESTEPS), cut)


CUT = {
    "middle": tuple(f"zero_convs.{index}." for index in range(6)),
    "shallow": (*(f"zero_convs.{index}." for index in range(3, 6)), "middle_block_out."),
}


@pytest.mark.parametrize("links", CUT)
@pytest.mark.parametrize("kind", ["controlnet", "control_lora", "gaussian"])
def test_the_file_has_none_of_what_its_start_would_add_through_cut_links(
    tmp_path: Path, kind: str, links: str, base: Base
) -> None:
    """Neither another file's residuals nor random ones, which the run never saw."""
    start = tmp_path / "start" / "start.safetensors"
    finished(trainer(configured(start.parent, run={"steps": 2, "file_dtype": "fp32"}), base=base))
    settings = {"zero_init": "gaussian"} if kind == "gaussian" else {"kind": kind, "init": str(start), "rank": 8}
    written = {"steps": 1, "file_dtype": "fp32"}
    run = trainer(configured(tmp_path / "x", target={**settings, "links": links}, run=written), base=base)
    finished(run)
    tensors = checkpoint.read(tmp_path / "x" / "x.safetensors").tensors
    names = [name for name in tensors if name.startswith(("zero_convs.", "middle_block_out."))]
    cut = [name for name in names if name.startswith(CUT[links])]
    assert len(names) == 14 and len(cut) == 2 * len(CUT[links])
    assert all(bool(tensors[name].any()) is (name not in cut) for name in names)
    alone = run.target.predict(run.module, base.unet, BATCH, NOISY, TIMESTEPS)
    setattr(run.target.module, "links", "all")  # noqa: B010, whatever the module is
    assert torch.equal(run.target.predict(run.module, base.unet, BATCH, NOISY, TIMESTEPS), alone)


def flops(config: UNetConfig, side: int, links: str, tmp_path: Path, base: Base) -> int:
    """Operations of a step on the meta device."""
    with torch.device("meta"):
        unet = UNet(config).requires_grad_(False)
        noisy, hint = torch.empty(1, 4, side, side), torch.empty(1, 3, 8 * side, 8 * side)
        context, timesteps = torch.empty(1, 77, config.context_dim), torch.zeros(1)
        y = torch.empty(1, config.adm_in_channels) if config.adm_in_channels else None
    target = make_target(replace(base, unet=unet), configured(tmp_path, target={"links": links}))
    target.begin(0)
    batch = type(BATCH)(latents=noisy, hint=hint, context=context, y=y, rows=torch.zeros(1))
    with FlopCounterMode(display=False) as counter:
        target.predict(target.module, unet, batch, noisy, timesteps).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(("config", "side", "saved"), [(SD1, 64, 0.36), (SDXL, 128, 0.62)])
def test_shallow_links_save_what_was_counted(
    tmp_path: Path, base: Base, config: UNetConfig, side: int, saved: float
) -> None:
    whole, middle, shallow = (flops(config, side, links, tmp_path, base) for links in ("all", "middle", "shallow"))
    assert 1 - shallow / whole == pytest.approx(saved, abs=0.03)
    assert 1 - middle / whole < 0.01


def decoder_difference(path: Path) -> dict[str, Tensor]:
    """The file beside the ControlNet's."""
    return checkpoint.read(path.with_name(f"{path.stem}-decoder.safetensors")).tensors


def test_the_decoder_is_unlocked_late_and_ships_as_a_difference(tmp_path: Path, base: Base) -> None:
    settings = {"unlock_decoder_at": 3, "decoder_learning_rate": 1e-3}
    run = trainer(configured(tmp_path / "x", target=settings, run={"steps": 6, "file_dtype": "fp32"}), base=base)
    before = {name: value.clone() for name, value in base.unet.state_dict().items()}
    assert not any(name.startswith("decoder.") for name in gradients(run))
    run.target.begin(3)
    decoder = [name for name, _ in run.target.module.named_parameters() if name.startswith("decoder.")]
    assert sum(name.startswith("decoder.") for name in gradients(run)) == len(decoder)
    finished(run)
    assert same(before, base.unet.state_dict())
    changes = decoder_difference(tmp_path / "x" / "x.safetensors")
    assert len(changes) == sum(name.startswith(("output_blocks.", "out.")) for name in before)
    names = {".diff": ".weight", ".diff_b": ".bias"}
    for key, value in changes.items():
        stem, dot, part = key.removeprefix("diffusion_model.").rpartition(".")
        before[stem + names[dot + part]] += value
    unet = UNet(base.unet.config)
    unet.load_state_dict(before)
    file = checkpoint.read(tmp_path / "x" / "x.safetensors")
    assert ControlNetMetadata.from_strings(file.metadata).decoder == "x-decoder.safetensors"
    snapshot = checkpoint.read(export.write(run, tmp_path / "x" / "x-converged-3.safetensors"))
    assert ControlNetMetadata.from_strings(snapshot.metadata).decoder == "x-converged-3-decoder.safetensors"
    assert (tmp_path / "x" / "x-converged-3-decoder.safetensors").is_file()
    control = file.tensors
    again = trainer(configured(tmp_path / "y"), base=base)
    again.target.module.load_state_dict({f"control.{name}": value for name, value in control.items()})
    with torch.no_grad():
        trained = run.target.predict(run.module, base.unet, BATCH, NOISY, TIMESTEPS)
        torch.testing.assert_close(
            again.target.predict(again.module, unet, BATCH, NOISY, TIMESTEPS), trained, rtol=1e-5, atol=1e-5
        )
        locked = again.target.predict(again.module, base.unet, BATCH, NOISY, TIMESTEPS)
    assert (locked - trained).abs().max() > 1e-3


def test_a_decoder_ships_and_is_named_only_once_it_was_trained(tmp_path: Path) -> None:
    path, decoder = tmp_path / "x" / "x.safetensors", tmp_path / "x" / "x-decoder.safetensors"
    for stop, trained in ((3, False), (4, True), (6, True)):
        run = trainer(configured(path.parent, target={"unlock_decoder_at": 3}))
        for event in run.run():
            if event.number == stop:
                run.stop()
        named = ControlNetMetadata.from_strings(checkpoint.read(path).metadata).decoder
        assert (run.done, named, decoder.is_file()) == (stop, decoder.name if trained else None, trained)
    finished(trainer(configured(path.parent, target={"unlock_decoder_at": 3})))
    assert ControlNetMetadata.from_strings(checkpoint.read(path).metadata).decoder == decoder.name


def test_a_unet_with_more_inputs_holds_its_decoder_itself(tmp_path: Path) -> None:
    settings = {"kind": "input_channels", "hint_encoder": "vae", "unlock_decoder_at": 1}
    finished(trainer(configured(tmp_path / "x", target=settings, run={"steps": 2})))
    (path,) = (tmp_path / "x").glob("*.safetensors")
    assert ControlNetMetadata.from_strings(checkpoint.read(path).metadata).decoder is None


def test_each_part_learns_at_its_own_rate(tmp_path: Path) -> None:
    settings = {"unlock_decoder_at": 2, "decoder_learning_rate": 0.0}
    run = trainer(configured(tmp_path / "x", target=settings, run={"steps": 4, "file_dtype": "fp32"}))
    finished(run)
    changes = decoder_difference(tmp_path / "x" / "x.safetensors")
    assert all(value.abs().max() == 0 for value in changes.values())


def test_a_run_that_is_interrupted_after_unlocking_ends_the_same(tmp_path: Path) -> None:
    settings = {"unlock_decoder_at": 2, "decoder_learning_rate": 1e-4, "links": "middle", "reconnect_at": 2}
    whole = trainer(configured(tmp_path / "a", target=settings))
    finished(whole)
    for steps in (3, 6):
        parts = trainer(configured(tmp_path / "b", target=settings, run={"steps": steps}))
        finished(parts)
    assert same(whole.weights(), parts.weights())
