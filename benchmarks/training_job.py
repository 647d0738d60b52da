"""A few steps of training, to be done by either side in a process of its own."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

HERE = Path(__file__).parent
SCRIPTS = {"ours": HERE / "training_ours.py", "diffusers' example": HERE / "diffusers_loop.py"}
BLOCK = 5
"""Steps after which a GPU is waited for. The first ones do not count."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What both sides are told."""

    base: str
    """Folder in diffusers' layout."""
    pairs: str
    """Folder in fill50k's layout."""
    size: int
    batch: int
    steps: int
    """A multiple of BLOCK, two or more of it."""
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Tables of a recipe, for our side."""
    threads: int = 0
    """0: torch's own choice."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a side has to say."""

    seconds: Sequence[float]
    """Of each step."""
    peak_mib: float
    """Of the process, or on a GPU of torch's allocations."""
    prepared: float = 0.0
    """Seconds before the first step in which pairs were encoded, ours only."""

    def rate(self, batch: int) -> float:
        """Pairs per second, of the median block."""
        blocks = [sum(self.seconds[start : start + BLOCK]) for start in range(BLOCK, len(self.seconds), BLOCK)]
        return BLOCK * batch / statistics.median(blocks)


def this_job() -> Job:
    """Of the process that a benchmark started, set up as it says."""
    job = Job(**json.loads(sys.argv[1]))
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    return job


def peak_mib(job: Job) -> float:
    """So far."""
    on_cpu = job.device == "cpu"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if on_cpu else torch.cuda.max_memory_allocated()
    return peak / 2**20


def report(outcome: Outcome) -> None:
    """Print what came of this process."""
    print(json.dumps(asdict(outcome)))


def run(side: str, job: Job, limit: float | None = None) -> Outcome | None:
    """Have one side do it; None when the device's memory is too small. TimeoutExpired after `limit` seconds."""
    command = [sys.executable, SCRIPTS[side], json.dumps(asdict(job))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit)
    if done.returncode == 0:
        return Outcome(**json.loads(done.stdout.splitlines()[-1]))
    if "out of memory" in done.stderr or "memory is too small" in done.stderr:
        return None
    raise RuntimeError(f"{side} failed:\n{done.stderr[-3000:]}")
