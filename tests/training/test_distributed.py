"""Two processes compute what one does, and one of them writes."""

from __future__ import annotations

from pathlib import Path

import torch
from controlnet_kit.cn_core.files import checkpoint
from training_runs import RandomSamples, configured, finished, trainer
from two_processes import two_processes

TABLES = {
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "clip": 0.01, "ema": 0.5},
    "objective": {"timesteps": "learned", "min_snr_gamma": 5.0},
    "hardware": {"micro_batch": 2},
    "run": {"steps": 4, "batch": 8, "save_every": 2, "file_dtype": "fp32", "log_every": 4},
    "validation": {"every": 2, "count": 2, "steps": 2, "probe_every": 1},
}
PROGRAM = """
from training_runs import RandomSamples, configured, trainer
from controlnet_kit.training.watch.watchers import watchers
config = configured(Path(sys.argv[1]), **{tables!r})
run = trainer(config, RandomSamples(count=20, wide=8), watchers=watchers(config.validation))
assert run.accelerator.num_processes == 2
for event in run.run():
    print(run.accelerator.process_index, event, flush=True)
    if len(sys.argv) > 2 and event.number == 2 and run.accelerator.process_index == 1:
        run.stop()
"""


def pair(folder: Path, *arguments: str) -> list[str]:
    """Run the program in two processes; their outputs."""
    return two_processes(PROGRAM.format(tables=TABLES), str(folder), *arguments)


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Stopped half way by the second process's wish, and resumed."""
    one = trainer(configured(tmp_path / "one", **TABLES), RandomSamples(count=20, wide=8))
    finished(one)
    stopped = pair(tmp_path / "two", "stop")
    assert all("stopped=True" in output for output in stopped)
    resumed = pair(tmp_path / "two")
    assert all("Resumed(number=2" in output and "stopped=False" in output for output in resumed)
    for output in (*stopped, *resumed):
        assert "Validated(" in output and "Probed(" in output and "ranks differ" not in output
    single, double = (checkpoint.read(tmp_path / name / f"{name}.safetensors").tensors for name in ("one", "two"))
    for name in single:
        torch.testing.assert_close(double[name], single[name], atol=1e-6, rtol=1e-5)
    start = trainer(configured(tmp_path / "none", **TABLES)).keeper.state_dict()
    moved = [(single[name] - start[f"control.{name}"]).abs().max().item() for name in single]
    assert max(moved) > 1e-3


CRAMPED = """
import torch
from controlnet_kit.training.errors import TrainingError
from training_runs import RandomSamples, configured, trainer
config, limit = configured(Path(sys.argv[1]), **@tables@), int(sys.argv[2])
run = trainer(config, RandomSamples(count=20, wide=8))

def hook(module, inputs, output):
    wide = inputs[0].shape[-1] > 8
    if run.accelerator.process_index == 1 and len(inputs[0]) > limit // (2 if wide else 1):
        raise torch.OutOfMemoryError("CUDA out of memory.")  # as CUDA's allocator does

run.target.module.register_forward_hook(hook)
try:
    for event in run.run():
        print(event, flush=True)
except TrainingError as error:
    print("ended:", error)
"""
CRAMPED_TABLES = {**TABLES, "hardware": {}, "validation": {"every": 0, "probe_every": 0}}


def cramped(folder: Path, limit: int) -> list[str]:
    """Outputs of two processes, the second of which holds `limit` pairs, or half as many that are wide."""
    return two_processes(CRAMPED.replace("@tables@", repr(CRAMPED_TABLES)), str(folder), str(limit))


def test_too_little_memory_in_one_process_halves_the_micro_batches_of_both(tmp_path: Path) -> None:
    for output in cramped(tmp_path / "two", 2):
        halved = [line for line in output.splitlines() if line.startswith("MicroBatchHalved")]
        assert [line.rpartition("=")[2] for line in halved] == ["2)", "1)"] and "ended:" not in output
    finished(trainer(configured(tmp_path / "one", **CRAMPED_TABLES), RandomSamples(count=20, wide=8)))
    single, double = (checkpoint.read(tmp_path / name / f"{name}.safetensors").tensors for name in ("one", "two"))
    for name in single:
        torch.testing.assert_close(double[name], single[name], atol=1e-6, rtol=1e-5)


def test_no_memory_for_a_single_pair_ends_all_processes(tmp_path: Path) -> None:
    for output in cramped(tmp_path / "two", 0):
        assert "ended: The device's memory is too small in step 1 with micro-batches of 1" in output
        assert "StepDone" not in output


SHARDED = """
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from training_runs import RandomSamples, configured, trainer
from controlnet_kit.training.watch.guard import Guard
accelerator = Accelerator(cpu=True)
# Accelerate sets FSDP up for GPUs only; torch and all that follows work on CPUs as well.
plugin = FullyShardedDataParallelPlugin(
    fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["Block"]
)
AcceleratorState._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}
PartialState._shared_state["distributed_type"] = DistributedType.FSDP
config = configured(Path(sys.argv[1]), **@tables@)
run = trainer(config, RandomSamples(count=20, wide=8), watchers=[Guard()], accelerator=accelerator)
assert run.keeper.sharded
for event in run.run():
    print(event, flush=True)
    if len(sys.argv) > 2 and event.number == 2:
        run.stop()
"""


def test_weights_that_are_spread_over_processes(tmp_path: Path) -> None:
    """FSDP: stopped half way, resumed, and the file is that of one process."""
    tables = {**TABLES, "optimizer": {"learning_rate": 1e-3}, "validation": {"every": 0, "probe_every": 0}}
    program = SHARDED.replace("@tables@", repr(tables))
    stopped = two_processes(program, str(tmp_path / "spread"), "stop")
    resumed = two_processes(program, str(tmp_path / "spread"))
    assert all("stopped=True" in output for output in stopped)
    assert all("Resumed(number=2" in output and "stopped=False" in output for output in resumed)
    assert not any("Alarm(" in output for output in (*stopped, *resumed))
    finished(trainer(configured(tmp_path / "one", **tables), RandomSamples(count=20, wide=8)))
    single, spread = (checkpoint.read(tmp_path / name / f"{name}.safetensors").tensors for name in ("one", "spread"))
    assert single.keys() == spread.keys()
    # AdamW's first steps turn gradients into their signs, also those that are nothing but rounding.
    far = [(spread[name] - single[name]).abs() > 1e-4 for name in single]
    assert sum(map(torch.sum, far)) < 1e-3 * sum(part.numel() for part in far)
