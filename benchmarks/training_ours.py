"""Our side of `training.py` and `training_gpu.py`: a run as the command does it, with its caches.

python benchmarks/training_ours.py JSON      # fields of training_job.Job
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from accelerate import Accelerator
from controlnet_kit.training.bases.open import open_base
from controlnet_kit.training.config import TrainConfig
from controlnet_kit.training.data import latent_hints
from controlnet_kit.training.events import StepDone
from controlnet_kit.training.hardware import keep_freed_memory
from controlnet_kit.training.loop import Trainer
from controlnet_kit.training.planned import plan_samples
from controlnet_kit.training.planner import plan
from controlnet_kit.training.targets.make import make_target
from training_job import BLOCK, Job, Outcome, peak_mib, report, this_job


def config_of(job: Job, output: str) -> TrainConfig:
    """The job as a recipe."""
    tables = {
        "base": {"path": job.base},
        "data": {
            "path": job.pairs,
            "format": "fill50k",
            "resolution": job.size,
            "validation": 0,
            "cache": f"{job.pairs}-cache",
        },
        "objective": {"prompt_dropping": 0.0},
        "hardware": {"precision": job.precision},
        "validation": {"every": 0, "probe_every": 0},
        "run": {"output": output, "steps": job.steps, "batch": job.batch, "log_every": BLOCK},
    }
    names = {*tables, *job.settings}
    return TrainConfig.from_tables({name: {**tables.get(name, {}), **job.settings.get(name, {})} for name in names})


def tflop(job: Job) -> float:
    """Of one pair, nothing computed again; counted, not measured."""
    config = config_of(job, "none")
    once = replace(config, hardware=replace(config.hardware, checkpointing="none"))
    return plan.costs(once, open_base(config.base)).choices["none"].tflop


def durations(trainer: Trainer) -> Iterator[float]:
    """Seconds of each step; what comes after the last one, a checkpoint and the file, is not waited for."""
    for event in trainer.run():
        if isinstance(event, StepDone):
            yield event.seconds
            if event.number == trainer.config.run.steps:
                return


def main() -> None:
    """One line of JSON."""
    job = this_job()
    keep_freed_memory()
    accelerator = Accelerator(cpu=job.device == "cpu")
    with tempfile.TemporaryDirectory() as output:
        config = config_of(job, output)
        base = open_base(config.base)
        found = plan.decided(config, base, plan.card(config, accelerator.device))
        settings = found.config if found else config
        began = time.perf_counter()
        kind = latent_hints.wanted(config.target)
        samples = plan_samples(config.data, base, device=accelerator.device, latent_hints=kind).encoded()
        prepared = time.perf_counter() - began
        if job.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer = Trainer(base, samples, make_target(base, settings), settings, accelerator)
        seconds = list(durations(trainer))
    report(Outcome(seconds=seconds, peak_mib=peak_mib(job), prepared=prepared))


if __name__ == "__main__":
    main()
