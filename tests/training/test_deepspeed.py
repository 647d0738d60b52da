"""DeepSpeed is told what a run is, refused what its engine would do wrong, and trains what one process does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from controlnet_kit.cn_core.files import checkpoint
from controlnet_kit.training.compute import Share, check, tell_deepspeed
from controlnet_kit.training.errors import ConfigError
from training_runs import RandomSamples, configured, finished, trainer
from two_processes import launched

INSTALLED = Path(sys.prefix).parent / "apart"
"""Beside this Python's environment, see scripts/bootstrap.py."""
AUTO = "auto"
SHARE = Share(start=0, stop=4)


def told(monkeypatch: pytest.MonkeyPatch, stage: int = 2) -> tuple[Accelerator, dict[str, Any]]:
    """An accelerator as with DeepSpeed, which accelerate sets up where a launcher asks for it, and its settings."""
    accelerator, plugin = Accelerator(cpu=True), DeepSpeedPlugin(zero_stage=stage)
    monkeypatch.setitem(AcceleratorState._shared_state, "distributed_type", DistributedType.DEEPSPEED)
    monkeypatch.setitem(AcceleratorState._shared_state, "deepspeed_plugins", plugin)
    return accelerator, plugin.deepspeed_config


def test_what_is_automatic_is_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, settings = told(monkeypatch)
    assert settings["train_micro_batch_size_per_gpu"] == AUTO
    tell_deepspeed(configured(tmp_path, optimizer={"clip": 0.5}), SHARE, accelerator)
    assert (settings["train_micro_batch_size_per_gpu"], settings["gradient_clipping"]) == (4, 0.5)
    assert not settings["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"]


def test_stage_3_can_write_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, settings = told(monkeypatch, stage=3)
    tell_deepspeed(configured(tmp_path), SHARE, accelerator)
    assert settings["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"]


def test_other_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, settings = told(monkeypatch)
    settings["train_micro_batch_size_per_gpu"] = 3
    with pytest.raises(ConfigError, match=r'train_micro_batch_size_per_gpu must be .* 4, or "auto": got 3'):
        tell_deepspeed(configured(tmp_path), SHARE, accelerator)
    settings["gradient_accumulation_steps"] = 2
    with pytest.raises(ConfigError, match="gradient_accumulation_steps of accelerate and DeepSpeed must be 1, got 2"):
        check(configured(tmp_path), accelerator)
    settings["gradient_accumulation_steps"] = AUTO
    check(configured(tmp_path), accelerator)
    with pytest.raises(ConfigError, match=r"hardware.micro_batch must be run.batch / processes, 4: got 2"):
        check(configured(tmp_path, hardware={"micro_batch": 2}), accelerator)


def test_steps_are_not_added_up_without_deepspeed_either(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be 1, got 3: run.batch is what a step sees"):
        check(configured(tmp_path), Accelerator(cpu=True, gradient_accumulation_steps=3))


TABLES = {
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "clip": 0.01},
    "run": {"steps": 3, "batch": 8, "file_dtype": "fp32"},
}
PROGRAM = """
import deepspeed
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # a quicker way, for minutes of compilation; gloo serves
from accelerate import Accelerator, DeepSpeedPlugin, InitProcessGroupKwargs
from training_runs import RandomSamples, configured, trainer
from controlnet_kit.training.watch.guard import Guard
gloo = InitProcessGroupKwargs(backend="gloo")  # accelerate would choose none on a CPU
plugin = DeepSpeedPlugin(zero_stage=@stage@)
accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[gloo], deepspeed_plugin=plugin)
assert accelerator.num_processes == 2
config = configured(Path(sys.argv[1]), **@tables@)
run = trainer(config, RandomSamples(count=20), watchers=[Guard()], accelerator=accelerator)
assert type(run.module).__name__ == "DeepSpeedEngine"
for event in run.run():
    print(event, flush=True)
    if len(sys.argv) > 2 and event.number == 2:
        run.stop()
"""


@pytest.mark.skipif(
    torch.cuda.is_available() and not (INSTALLED / "deepspeed").is_dir(),
    reason="DeepSpeed could not be installed beside a GPU without CUDA's compiler",
)
@pytest.mark.parametrize("stage", [2, 3])
def test_its_engine_trains_what_the_loop_does(tmp_path: Path, stage: int) -> None:
    """With stage 3 stopped and resumed; the file is that of a run without it."""
    for stopped in engine(stage, str(tmp_path / "engine"), "stop") if stage == 3 else ():
        assert "stopped=True" in stopped and "Alarm(" not in stopped
    for output in engine(stage, str(tmp_path / "engine")):
        assert "stopped=False" in output and "Alarm(" not in output and ("Resumed(number=2" in output) == (stage == 3)
    finished(trainer(configured(tmp_path / "loop", **TABLES), RandomSamples(count=20)))
    wanted, found = (checkpoint.read(tmp_path / name / f"{name}.safetensors").tensors for name in ("loop", "engine"))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-6, rtol=1e-5)


def engine(stage: int, *arguments: str) -> list[str]:
    """The program's outputs in two processes on a CPU."""
    program = PROGRAM.replace("@tables@", repr(TABLES)).replace("@stage@", str(stage))
    place = {"LOCAL_WORLD_SIZE": "2", "LOCAL_SIZE": "2", "CROSS_SIZE": "1"}
    chosen = {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu"}
    path = os.pathsep.join([str(INSTALLED), os.environ.get("PYTHONPATH", "")])
    return launched(program, *arguments, environment={**place, **chosen, "PYTHONPATH": path})
