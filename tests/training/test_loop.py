"""The loop on the embedded base: only the copy learns, and a step is the same however it is cut up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from controlnet_kit.cn_core.diffusion import NoiseSchedule
from controlnet_kit.cn_core.files import checkpoint
from controlnet_kit.cn_core.files.detect import detect
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.cn_core.networks.config import TINY
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.training.bases.base import Base
from controlnet_kit.training.config import TrainConfig
from controlnet_kit.training.errors import ConfigError, DivergedError, TrainingError
from controlnet_kit.training.events import (
    Converged,
    Event,
    Finished,
    MicroBatchHalved,
    Saved,
    StepDone,
    Validated,
)
from controlnet_kit.training.loop import Trainer
from controlnet_kit.training.targets.make import make_target
from torch import nn
from training_runs import RandomSamples, configured, finished, of_kind, same, trainer


def losses(run: Trainer) -> list[float]:
    """Of each step."""
    return [step.loss for step in of_kind(finished(run), StepDone)]


def test_only_the_copy_learns_and_the_file_tells_of_it(tmp_path: Path, base: Base) -> None:
    before = {name: value.clone() for name, value in base.unet.state_dict().items()}
    told = {"licence": "MIT", "strength": 0.7, "end_percent": 0.6}
    config = configured(tmp_path / "mine", data={"hints": "canny", "resolution": 64}, run=told)
    run = trainer(config, base=base)
    start = {name: value.clone() for name, value in run.weights().items()}
    events = finished(run)
    assert same(before, base.unet.state_dict()) and all(p.grad is None for p in base.unet.parameters())
    assert not any(torch.equal(value, start[name]) for name, value in run.weights().items())
    done = of_kind(events, Finished)[0]
    assert (done.number, done.stopped, done.path) == (6, False, tmp_path / "mine" / "mine.safetensors")
    file = checkpoint.read(done.path)
    detected = detect(file.tensors)
    assert detected is not None and detected.config == TINY
    checkpoint.load_strictly(ControlNet(TINY), file.tensors, name="mine")
    story = ControlNetMetadata.from_strings(file.metadata)
    assert (story.preprocessor, story.steps, story.samples) == ("PreprocessCanny", 6, 24)
    assert (story.base_sha256, story.dataset_sha256, story.licence) == (base.sha256, "0" * 64, "MIT")
    assert (story.strength, story.start_percent, story.end_percent) == (0.7, None, 0.6)


def test_the_first_step_begins_at_the_base_itself_and_ten_steps_leave_it(tmp_path: Path, base: Base) -> None:
    batch = RandomSamples().batch(torch.arange(2), torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.bool))
    noisy, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([3, 900])
    alone = base.unet(noisy, timesteps, batch.context)
    run = trainer(configured(tmp_path, run={"steps": 10}), base=base)
    with torch.no_grad():
        assert torch.equal(run.target.predict(run.module, base.unet, batch, noisy, timesteps), alone)
        finished(run)
        assert not torch.equal(run.target.predict(run.module, base.unet, batch, noisy, timesteps), alone)


def test_it_learns_one_pair_by_heart(tmp_path: Path) -> None:
    config = configured(tmp_path, run={"steps": 40, "batch": 2}, optimizer={"learning_rate": 3e-3})
    run = trainer(config, RandomSamples(count=1))
    fixed = run.draw(0)
    found = losses(trainer(config, RandomSamples(count=1), draws=lambda _: fixed))
    assert found[-1] < 0.6 * found[0]


def test_the_same_seed_is_the_same_run(tmp_path: Path) -> None:
    runs = [losses(trainer(configured(tmp_path / f"{i}", run={"seed": s}))) for i, s in enumerate((5, 5, 6))]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_change_nothing(tmp_path: Path, micro: int) -> None:
    whole, parts = (
        losses(trainer(configured(tmp_path / f"{size}", hardware={"micro_batch": size}, run={"steps": 3})))
        for size in (0, micro)
    )
    torch.testing.assert_close(torch.tensor(whole), torch.tensor(parts), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "tables",
    [
        {"hardware": {"checkpointing": "both"}},
        {"optimizer": {"clip": 0.0, "in_backward": True}},
        {"hardware": {"channels_last": True}},
    ],
)
def test_ways_to_compute_are_the_same(tmp_path: Path, tables: dict[str, Any]) -> None:
    clip = {"optimizer": {"clip": 0.0}}
    plain = losses(trainer(configured(tmp_path / "a", run={"steps": 3}, **clip)))
    other = losses(trainer(configured(tmp_path / "b", run={"steps": 3}, **{**clip, **tables})))
    torch.testing.assert_close(torch.tensor(plain), torch.tensor(other), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "tables",
    [
        {"hardware": {"precision": "bf16"}},
        {"hardware": {"precision": "bf16", "base_dtype": "fp32"}},
        {"objective": {"timesteps": "learned", "min_snr_gamma": 5.0, "offset_noise": 0.05}},
        {"target": {"zero_init": "gaussian", "hint_encoder": "paper"}},
    ],
)
def test_settings_that_change_the_run_run(tmp_path: Path, tables: dict[str, Any]) -> None:
    found = losses(trainer(configured(tmp_path, run={"steps": 3}, **tables), RandomSamples(count=9, wide=4)))
    assert all(0 < loss < 20 for loss in found)


def cramped(config: TrainConfig, limit: int) -> Trainer:
    """A run whose device holds `limit` pairs."""

    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...], __: object) -> None:
        if len(inputs[0]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")  # as CUDA's allocator does

    run = trainer(config)
    run.target.module.register_forward_hook(hook)
    return run


def test_too_little_memory_halves_the_micro_batch_and_goes_on(tmp_path: Path) -> None:
    roomy = losses(trainer(configured(tmp_path / "a", run={"steps": 2})))
    events = finished(cramped(configured(tmp_path / "b", run={"steps": 2}), 1))
    halved = [(event.number, event.micro_batch) for event in of_kind(events, MicroBatchHalved)]
    assert halved == [(0, 2), (0, 1)]
    found = [step.loss for step in of_kind(events, StepDone)]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(roomy), atol=1e-6, rtol=1e-5)


def test_no_memory_for_a_single_pair_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="memory is too small in step 1"):
        finished(cramped(configured(tmp_path), 0))


def test_no_memory_for_the_optimiser_says_what_to_change(tmp_path: Path) -> None:
    def hook(*_: object) -> None:
        if run.done == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")  # as CUDA's allocator does

    run = trainer(configured(tmp_path))
    wrapped: Any = run.optimizers.all[0]
    wrapped.optimizer.register_step_pre_hook(hook)
    with pytest.raises(TrainingError, match=r"what the optimiser keeps .in step 2.*adamw8bit.*hardware\.fit"):
        finished(run)
    assert all(parameter.grad is None for parameter in run.target.module.parameters())
    assert not list(tmp_path.rglob("checkpoints/*")), "the weights may be half way to the next step"


class LostSamples(RandomSamples):
    """From the third step on a pair is broken."""

    def batch(self, rows: torch.Tensor, posterior_noise: torch.Tensor, dropped: torch.Tensor) -> Any:
        """As the others, but for row 7."""
        batch = super().batch(rows, posterior_noise, dropped)
        batch.latents[rows == 7] = float("nan")
        return batch


def test_a_lost_loss_leaves_its_batch_and_no_file(tmp_path: Path) -> None:
    run = trainer(configured(tmp_path, run={"log_every": 6, "steps": 12}), LostSamples())
    with pytest.raises(DivergedError, match="is nan") as error:
        finished(run)
    (path,) = tmp_path.glob("lost-step-*.safetensors")
    batch = checkpoint.read(path).tensors
    assert 7 in batch["rows"] and batch["latents"].isnan().any() and {"noise", "timesteps", "hint"} <= batch.keys()
    assert str(path) in str(error.value) and not (tmp_path / f"{tmp_path.name}.safetensors").exists()
    assert not list(tmp_path.rglob("checkpoints/*"))


@pytest.mark.parametrize("broken_loss", [True, False])
def test_a_lost_batch_has_the_timesteps_that_its_step_drew(tmp_path: Path, broken_loss: bool) -> None:
    """Although the learned distribution has seen later steps since, and a loss that is no number."""
    config = configured(tmp_path, run={"log_every": 6}, objective={"timesteps": "learned"})
    run = trainer(config, LostSamples()) if broken_loss else broken(config, 3)
    run.timesteps.squares = torch.linspace(0.1, 2, 20, dtype=torch.float64)
    seen: list[torch.Tensor] = []
    run.target.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].clone()))
    with pytest.raises(DivergedError):
        finished(run)
    (path,) = tmp_path.glob("lost-step-*.safetensors")
    step = int(path.stem.rpartition("-")[2]) - 1
    assert step < len(seen) - 1
    assert torch.equal(checkpoint.read(path).tensors["timesteps"], seen[step])


def broken(config: TrainConfig, step: int) -> Trainer:
    """A run whose gradient is no number in one step (from 1), while the loss still is one."""
    run = trainer(config)
    parameters = dict(run.target.module.named_parameters())
    parameters["control.middle_block_out.0.bias"].register_hook(
        lambda gradient: gradient * float("nan") if run.done == step - 1 else gradient
    )
    return run


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"clip": 1.0}, "In step 3 the gradient's norm is nan"),
        ({"clip": 0.0}, "In step 3 some weights became no numbers"),
        ({"clip": 0.0, "in_backward": True}, "In step 3 some weights became no numbers"),
    ],
)
@pytest.mark.parametrize("save_every", [3, 100])
def test_what_is_lost_is_never_saved(tmp_path: Path, optimizer: dict[str, Any], save_every: int, message: str) -> None:
    """Whether a run is stopped between readings, or a checkpoint is due in that very step: the batch is that step's."""
    settings = {"steps": 12, "log_every": 10, "save_every": save_every}
    run = broken(configured(tmp_path, run=settings, optimizer=optimizer), 3)
    with pytest.raises(DivergedError, match=message):
        for event in run.run():
            if event.number == 6:
                run.stop()
    (path,) = tmp_path.glob("lost-step-*.safetensors")
    assert torch.equal(checkpoint.read(path).tensors["rows"], run.draw(2).rows)
    assert not list(tmp_path.rglob("checkpoints/*")) and not (tmp_path / f"{tmp_path.name}.safetensors").exists()


def test_a_base_that_shares_weights_or_changes_is_refused(tmp_path: Path, base: Base) -> None:
    config = configured(tmp_path / "a")
    target = make_target(base, config)
    shared = next(iter(base.unet.input_blocks.parameters()))
    shared.data = next(iter(target.module.parameters())).data
    with pytest.raises(TrainingError, match="shares 1 tensors"):
        Trainer(base, RandomSamples(), target, config, Accelerator(cpu=True))


def test_a_base_that_changed_leaves_no_file(tmp_path: Path, base: Base) -> None:
    run = trainer(configured(tmp_path), base=base)
    with pytest.raises(TrainingError, match="frozen base changed"):
        for event in run.run():
            if event.number == 3:
                next(base.unet.out.parameters()).data += 1
    assert not (tmp_path / f"{tmp_path.name}.safetensors").exists()


class Scout:
    """A watcher that says something at step 2 and remembers how often it was asked."""

    name = "scout"

    def __init__(self) -> None:
        self.asked = 0

    def watch(self, _run: Trainer, step: StepDone, /) -> Iterable[Event]:
        """See `Watcher`."""
        self.asked += 1
        if step.number == 2:
            picture = torch.zeros(1, 8, 8, 3, dtype=torch.uint8).numpy()
            yield Validated(number=2, scores={"edge_f1": 0.5}, images=picture, hints=picture)
            yield Converged(number=2, message="now")

    def state(self) -> Mapping[str, Any]:
        """See `Watcher`."""
        return {"asked": self.asked}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Watcher`."""
        self.asked = state["asked"]


def test_watchers_speak_and_remember(tmp_path: Path) -> None:
    scout = Scout()
    events = finished(trainer(configured(tmp_path, run={"steps": 3, "save_every": 3}), watchers=[scout]))
    snapshot = of_kind(events, Saved)[0].path
    assert snapshot.name == f"{tmp_path.name}-converged-2.safetensors" and snapshot.exists()
    story = ControlNetMetadata.from_strings(checkpoint.read(of_kind(events, Finished)[0].path).metadata)
    assert story.fidelity == {"edge_f1": 0.5}
    heir = Scout()
    finished(trainer(configured(tmp_path, run={"steps": 4}), watchers=[heir]))
    assert (scout.asked, heir.asked) == (3, 4)


def test_noise_levels_are_the_bases_own(tmp_path: Path, base: Base) -> None:
    other = replace(base, schedule=NoiseSchedule(beta_start=0.0001, beta_end=0.002, kind="linear"))
    one, two = (
        losses(trainer(configured(tmp_path / name, run={"steps": 1}), base=used))[0]
        for name, used in (("own", base), ("other", other))
    )
    assert two > 1.5 * one  # pictures with less noise tell less of it


def test_settings_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whole batch at once"):
        trainer(configured(tmp_path, optimizer={"clip": 0, "in_backward": True}, hardware={"micro_batch": 2}))
    with pytest.raises(ConfigError, match="fp16 needs a CUDA device"):
        trainer(configured(tmp_path, hardware={"precision": "fp16"}))
