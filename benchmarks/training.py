"""How fast does a ControlNet train on a CPU, ours against the loop of diffusers' example, on the same base and pairs?

The base has random weights and sizes at which its VAE costs about as large a part of a step as Stable Diffusion's. Each
side runs in a process of its own, in turns, in float32; ours with its caches made.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from controlnet_kit.training.commands import main as command
from results import write_section
from training_bases import SHAPES, make_base
from training_job import Job, Outcome, run

SIZE, BATCH, PAIRS = 128, 8, 256


def needed(outcome: Outcome | None) -> Outcome:
    """A CPU's memory is never too small for this."""
    if outcome is None:
        raise RuntimeError("This machine's memory is too small.")
    return outcome


def row(name: str, runs: Sequence[Outcome]) -> str:
    """One line of the table."""
    speed = statistics.median(one.rate(BATCH) for one in runs)
    memory = statistics.median(one.peak_mib for one in runs)
    return f"| {name} | {speed:.2f} | {1000 * BATCH / speed:.0f} ms | {memory:.0f} MiB |"


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="a multiple of 5")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: all cores)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base, pairs = Path(folder) / "base", Path(folder) / "pairs"
        make_base(base, SHAPES["small"])
        command(["dataset", "fill50k", str(pairs), "--count", str(PAIRS), "--size", str(SIZE)])
        job = Job(base=str(base), pairs=str(pairs), size=SIZE, batch=BATCH, steps=args.steps, threads=args.threads)
        first = needed(run("ours", replace(job, steps=10)))
        mine, theirs = list[Outcome](), list[Outcome]()
        for _ in range(args.rounds):
            mine.append(needed(run("ours", job)))
            theirs.append(needed(run("diffusers' example", job)))
    speed = statistics.median(a.rate(BATCH) / b.rate(BATCH) for a, b in zip(mine, theirs, strict=True))
    memory = statistics.median(a.peak_mib / b.peak_mib for a, b in zip(mine, theirs, strict=True))
    write_section(
        f"Training on {args.threads} CPU thread{'s' if args.threads > 1 else ''}: ours against diffusers' example",
        [
            f"A UNet of (64, 128, 256, 256) channels, {SIZE}x{SIZE} pictures, batch {BATCH}, float32, "
            f"{args.steps} steps,",
            f"{args.rounds} runs of either side in turns. Making the caches of {PAIRS} pairs took "
            f"{first.prepared:.1f} s, once.",
            "",
            "| loop | samples/s | step | peak memory |",
            "|---|---|---|---|",
            row("diffusers' example", theirs),
            row("ours", mine),
            "",
            f"Ours / diffusers': **{speed:.2f}** in samples/s (wanted: at least 1.35), **{memory:.2f}** in peak memory "
            "(wanted: at most 0.9).",
        ],
    )


if __name__ == "__main__":
    main()
