"""How fast, and in how much memory, does a ControlNet train on a GPU, ours against the loop of diffusers' examples?

Bases of random weights in the shapes of SD 1.5 and SDXL. Memory: one pair at a time, ours as its plan fits it into a
small card. Speed: both sides in turns, in bf16, ours with its caches made and nothing decided but by its plan. Then,
for SD 1.5, what each way to compute costs or gains. About eight minutes on an H100, by estimate.

    python benchmarks/training_gpu.py                                                         # a CUDA device
    python benchmarks/training_gpu.py --device cpu --shapes small "small XL" --precision fp32  # does it work at all?
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from controlnet_kit.training.commands import main as command
from controlnet_kit.training.hardware import DTYPES
from controlnet_kit.training.planner.plan import matmul_tflops
from results import write_section
from training_bases import SHAPES, make_base
from training_job import Job, Outcome, run
from training_ours import tflop

LAYOUT = {"channels_last": True}
PLAIN: dict[str, Any] = {**LAYOUT, "checkpointing": "none"}
WAYS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "int8 base": {"hardware": {**PLAIN, "base_dtype": "int8"}},
    "fp8 base": {"hardware": {**PLAIN, "base_dtype": "fp8"}},
    "8-bit optimiser": {"hardware": PLAIN, "optimizer": {"name": "adamw8bit"}},
    "all activations computed twice": {"hardware": {**PLAIN, "checkpointing": "both"}},
    "those of the two highest resolutions": {"hardware": {**PLAIN, "checkpointing": "two_levels"}},
    "compiled": {"hardware": {**PLAIN, "compile": True}},
}
"""Name -> tables of a recipe."""
WAY_STEPS, LIMIT = 15, 120
"""Of each, and seconds after which it is given up: compiling takes minutes where there are few cores."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is measured of a shape."""

    size: int
    batches: tuple[int, ...]
    small: float
    """GiB of the small card that one pair at a time has to fit into."""
    ways: int = 0
    """Pairs at once with which `WAYS` are measured; 0: they are not."""


TRIALS = {
    "small": Trial(size=128, batches=(2,), small=6, ways=2),
    "small XL": Trial(size=128, batches=(2,), small=6),
    "SD 1.5": Trial(size=512, batches=(8, 32), small=6, ways=8),
    "SDXL": Trial(size=1024, batches=(4,), small=12),
}


def line(shape: str, job: Job, side: str, found: Sequence[Outcome | None], ideal: float) -> str:
    """One of the table; `ideal` are the seconds that a pair's own operations would take as one matrix product."""
    done = [one for one in found if one is not None]
    head = f"| {shape} | {job.size} | {job.batch} | {side} "
    if len(done) < len(found):
        return f"{head}| out of memory | | |"
    speed = statistics.median(one.rate(job.batch) for one in done)
    peak = max(one.peak_mib for one in done) / 1024
    return f"{head}| {speed:.2f} | {100 * speed * ideal:.0f} % | {peak:.1f} GiB |"


def compared(shape: str, job: Job, name: str, rounds: int, ideal: float) -> Iterator[str]:
    """Lines of both sides; ours is called `name`."""
    mine, theirs = list[Outcome | None](), list[Outcome | None]()
    for _ in range(rounds):
        mine.append(run("ours", job))
        theirs.append(run("diffusers' example", job))
    yield line(shape, job, "diffusers' example", theirs, ideal)
    yield line(shape, job, name, mine, ideal)


def ways(shape: str, job: Job, ideal: float) -> Iterator[str]:
    """A line for each of `WAYS`."""
    for name, tables in WAYS.items():
        settings = {**tables, "hardware": {**tables["hardware"], "micro_batch": job.batch}}
        try:
            found = run("ours", replace(job, settings=settings, steps=WAY_STEPS), LIMIT)
            yield line(shape, job, f"ours, {name}", [found], ideal)
        except subprocess.TimeoutExpired:
            yield f"| {shape} | {job.size} | {job.batch} | ours, {name} | longer than {LIMIT} s | | |"


def measured(shape: str, args: argparse.Namespace, tflops: float) -> Iterator[str]:
    """All lines of a shape; our first run makes the caches."""
    trial = TRIALS[shape]
    with tempfile.TemporaryDirectory() as folder:
        base, pairs = Path(folder) / "base", Path(folder) / "pairs"
        make_base(base, SHAPES[shape])
        command(["dataset", "fill50k", str(pairs), "--count", str(args.pairs), "--size", str(trial.size)])
        job = Job(
            base=str(base),
            pairs=str(pairs),
            size=trial.size,
            batch=1,
            steps=args.steps,
            device=args.device,
            precision=args.precision,
        )
        ideal = tflop(job) / tflops
        fitted = replace(job, settings={"hardware": {"fit": True, "memory_gb": trial.small}})
        yield from compared(shape, fitted, f"ours, as planned for {trial.small:g} GiB", 1, ideal)
        for batch in trial.batches:
            larger = replace(job, batch=batch, settings={"hardware": LAYOUT})
            yield from compared(shape, larger, "ours", args.rounds, ideal)
        if trial.ways:
            yield from ways(shape, replace(job, batch=trial.ways), ideal)


def told(lines: Iterator[str]) -> Iterator[str]:
    """Each is printed as soon as it is there."""
    for text in lines:
        print(text, flush=True)
        yield text


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--shapes", nargs="+", choices=tuple(TRIALS), default=("SD 1.5", "SDXL"))
    parser.add_argument("--steps", type=int, default=25, help="a multiple of 5")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --device cpu --shapes small tries the script on a CPU")
    tflops = matmul_tflops(torch.device(args.device), DTYPES[args.precision])
    lines = [text for shape in args.shapes for text in told(measured(shape, args, tflops))]
    write_section(
        f"Training on a {args.device.upper()} device: ours against diffusers' examples",
        [
            f"{args.precision}, {args.steps} steps, both sides in turns ({args.rounds} each; a single pair and ways to "
            f"compute: 1); matrix products reach {tflops:.3g} TFLOP/s.",
            "Peak: the share of that which a step's own operations take, nothing computed again. Memory: peak of "
            "torch's allocations.",
            "",
            "| base | pixels | batch | loop | samples/s | peak | memory |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ],
    )


if __name__ == "__main__":
    main()
