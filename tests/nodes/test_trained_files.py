"""Files from the trainer in the host: what its sampler computes with them is what the trainer computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import pytest
import torch
from controlnet_kit.cn_core.files import checkpoint
from controlnet_kit.cn_core.networks.config import SD1
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.nodes.load import NEIGHBOURS
from controlnet_kit.nodes.preflight import PreflightControlNet
from controlnet_kit.nodes.tiny import ASSETS, TinyVAE, load_model, read_asset
from controlnet_kit.training.data import latent_hints
from controlnet_kit.training.loop import Trainer
from controlnet_kit.training.output import export
from controlnet_kit.training.samples import Batch
from random_models import SHAPES, hint_image, host_apply, host_load, our_apply, our_load, prompts, run, sample
from torch import Tensor
from training_runs import configured, finished, trainer

KINDS: dict[str, dict[str, Any]] = {
    "released": {},
    "paper": {"hint_encoder": "paper"},
    "vae": {"hint_encoder": "vae"},
    "control_lora": {"kind": "control_lora", "rank": 8},
    "lllite": {"kind": "lllite", "rank": 8},
    "unlocked": {"unlock_decoder_at": 1, "decoder_learning_rate": 1e-2},
    "shallow": {"links": "shallow"},
}
HINT = hint_image(height=64, width=64)
PREFLIGHT = {"steps": 20, "scheduler": "normal", "denoise": 1.0, "latent": {"samples": torch.zeros(1, 4, 8, 8)}}
Evaluation = tuple[Tensor, Tensor, Tensor, Tensor]
"""x, sigma, context and what the model said."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Callable[[str], tuple[Trainer, str]]:
    """A short run of each kind, with weights that matter, and its file's name in the host's folder."""
    done: dict[str, tuple[Trainer, str]] = {}

    def made(kind: str) -> tuple[Trainer, str]:
        if kind not in done:
            output = tmp_path_factory.mktemp("runs") / f"trained-{kind}"
            tables = {"optimizer": {"learning_rate": 1e-2}, "run": {"steps": 4, "file_dtype": "fp32"}}
            run = trainer(configured(output, target=KINDS[kind], **tables))
            with torch.inference_mode(False):
                finished(run)
            for path in output.glob("*.safetensors"):
                folder = Path(folder_paths.get_folder_paths("loras" if "decoder" in path.stem else "controlnet")[0])
                folder.mkdir(parents=True, exist_ok=True)
                (folder / path.name).write_bytes(path.read_bytes())
            done[kind] = (run, f"trained-{kind}.safetensors")
        return done[kind]

    return made


@pytest.fixture(scope="module")
def model() -> Any:
    """The embedded base as a MODEL."""
    return load_model(read_asset(ASSETS, "tiny_unet.safetensors"))


def evaluations(model: Any, conditionings: Any) -> list[Evaluation]:
    """What the sampler asks the model, and its answers."""
    found: list[Evaluation] = []

    def wrapper(apply_model: Any, call: dict[str, Any]) -> Tensor:
        out = apply_model(call["input"], call["timestep"], **call["c"])
        found.append((call["input"], call["timestep"], call["c"]["c_crossattn"], out))
        return out

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    sample(model, *conditionings)
    return found


@torch.inference_mode()
def same_as_trained(run: Trainer, model: Any, found: list[Evaluation]) -> float:
    """The largest difference from what the run's networks say, over the size of what the hint changes."""
    largest = changed = 0.0
    for x, sigma, context, out in found:
        timesteps = model.model.model_sampling.timestep(sigma).float()
        noisy = model.model.model_sampling.calculate_input(sigma, x).float()
        hint = HINT.movedim(-1, 1).expand(len(x), -1, -1, -1)
        kind = latent_hints.wanted(run.config.target)
        latent = None if kind == "none" else latent_hints.encoded(kind, run.base, hint)
        batch = Batch(
            latents=noisy, hint=hint, context=context.float(), y=None, rows=torch.zeros(len(x)), latent_hint=latent
        )
        eps = run.target.predict(run.module, run.base.unet, batch, noisy, timesteps)
        alone = run.base.unet(noisy, timesteps, batch.context)
        scale = sigma[:, None, None, None]
        largest = max(largest, float((x - scale * eps - out).div(scale).abs().max()))
        changed = max(changed, float((eps - alone).abs().max()))
    return largest / changed


@pytest.mark.parametrize("kind", ["released", "paper", "vae", "control_lora", "lllite", "shallow"])
def test_ours_loads_it_and_computes_the_same(runs, model, kind: str):
    run, name = runs(kind)
    vae: dict[str, Any] = {"vae": TinyVAE(read_asset(ASSETS, "tiny_vae.safetensors"))} if kind == "vae" else {}
    conditionings = our_apply(*prompts(SHAPES["tiny"]), our_load(name), HINT, **vae)
    assert same_as_trained(run, model, evaluations(model, conditionings)) < 0.01


@pytest.mark.parametrize("kind", ["released", "control_lora", "shallow"])
def test_the_hosts_own_loader_does_too(runs, model, kind: str):
    run, name = runs(kind)
    conditionings = host_apply(*prompts(SHAPES["tiny"]), host_load(name), HINT)
    assert same_as_trained(run, model, evaluations(model, conditionings)) < 0.01


def test_the_changed_decoder_is_a_lora_of_the_host(runs, model, caplog):
    trained, name = runs("unlocked")
    conditionings = our_apply(*prompts(SHAPES["tiny"]), our_load(name), HINT)
    assert same_as_trained(trained, model, evaluations(model, conditionings)) > 0.02
    path = folder_paths.get_full_path_or_raise("loras", "trained-unlocked-decoder.safetensors")
    patched, _ = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(path), 1.0, 0.0)
    assert "not loaded" not in caplog.text
    assert same_as_trained(trained, patched, evaluations(patched, conditionings)) < 0.01
    needed = "load trained-unlocked-decoder.safetensors into the model too"
    for one, warned in ((model, True), (patched, False)):
        report, _ = run(PreflightControlNet, model=one, positive=conditionings[0], **PREFLIGHT)
        assert (needed in report) == warned


def test_diffusers_computes_the_same(runs):
    from diffusers.models.controlnets.controlnet import ControlNetModel

    run, name = runs("released")
    folder = export.to_diffusers(run.output / name)
    theirs = ControlNetModel.from_pretrained(folder)
    noisy, timesteps, context = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.randn(2, 16, 64)
    hint = HINT.movedim(-1, 1).expand(2, -1, -1, -1)
    control = run.target.module.get_submodule("control")
    with torch.no_grad():
        ours = control(noisy, timesteps, context, control.encode_hint(hint))
        down, mid = theirs(noisy, timesteps, context, hint, return_dict=False)
    for one, other in zip((*ours.down, ours.mid), (*down, mid), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_unet_with_more_inputs_is_one_for_another_loader(tmp_path):
    config = configured(tmp_path / "x", target={"kind": "input_channels", "hint_encoder": "vae"}, run={"steps": 2})
    with torch.inference_mode(False):
        finished(trainer(config))
    tensors = checkpoint.read(tmp_path / "x" / "x.safetensors").tensors
    unet = UNet(checkpoint.unet_config(tensors))
    checkpoint.load_strictly(unet, tensors, name="x")
    assert unet.config.in_channels == 8
    assert "Load Diffusion Model" in NEIGHBOURS["a UNet"]
    with torch.device("meta"):
        shapes = UNet(replace(SD1, in_channels=8)).state_dict()
    found = comfy.model_detection.model_config_from_unet(dict(shapes), "")
    assert isinstance(found, comfy.supported_models.SD15_instructpix2pix)
