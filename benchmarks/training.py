"""How fast does a ControlNet train, ours against the loop of diffusers' example, on the same base and pairs?

The base has random weights and sizes at which its VAE costs about as large a part of a step as Stable Diffusion's. Each
side runs in a process of its own, in turns, in float32; ours with its caches made.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from controlnet_kit.training.bases.open import open_base
from controlnet_kit.training.commands import main as command
from controlnet_kit.training.config import TrainConfig
from controlnet_kit.training.events import StepDone
from controlnet_kit.training.hardware import keep_freed_memory
from controlnet_kit.training.loop import Trainer
from controlnet_kit.training.planned import plan_samples
from controlnet_kit.training.targets.make import make_target
from results import write_section

SIZE, BATCH, PAIRS, WARM_UP = 128, 8, 256, 5
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make_base(folder: Path) -> None:
    """A small base in diffusers' layout; its tokens are letters."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    cross: Any = ["CrossAttnDownBlock2D"] * 3, ["CrossAttnUpBlock2D"] * 3
    unet: dict[str, Any] = {
        "block_out_channels": (64, 128, 256, 256),
        "cross_attention_dim": 64,
        "attention_head_dim": 8,
        "down_block_types": (*cross[0], "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *cross[1]),
    }
    vae: dict[str, Any] = {
        "block_out_channels": (24, 48, 96, 96),
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    end = len(tokens) - 1
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    UNet2DConditionModel(**unet).save_pretrained(folder / "unet")
    AutoencoderKL(**vae).save_pretrained(folder / "vae")
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    words = folder / "tokenizer"
    words.mkdir()
    (words / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (words / "tokenizer_config.json").write_text(json.dumps(settings))


def ours(base: Path, pairs: Path, steps: int, threads: int) -> dict[str, Any]:
    """Seconds of each step, and the process's peak memory; the process is set up as the command does it."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    config = TrainConfig.from_tables(
        {
            "base": {"path": str(base)},
            "data": {"path": str(pairs), "format": "fill50k", "resolution": SIZE, "cache": str(pairs / "cache")},
            "objective": {"prompt_dropping": 0.0},
            "hardware": {"precision": "fp32"},
            "validation": {"every": 0, "probe_every": 0},
            "run": {
                "output": str(pairs / "run"),
                "steps": steps,
                "batch": BATCH,
                "save_every": steps,
                "resume": "never",
            },
        }
    )
    began = time.perf_counter()
    opened = open_base(config.base)
    samples = plan_samples(config.data, opened).encoded()
    cached = time.perf_counter() - began
    with tempfile.TemporaryDirectory(dir=pairs) as folder:
        config = TrainConfig.from_tables({**config.to_dict(), "run": {**vars(config.run), "output": folder}})
        trainer = Trainer(opened, samples, make_target(opened, config), config, Accelerator(cpu=True))
        seconds = [event.seconds for event in trainer.run() if isinstance(event, StepDone)]
    return {"seconds": seconds, "peak_rss_mib": peak_rss_mib(), "cache": cached}


def peak_rss_mib() -> float:
    """Of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(*arguments: str | Path) -> dict[str, Any]:
    """A child's line of JSON."""
    words = [sys.executable, *map(str, arguments)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def rate(seconds: Sequence[float]) -> float:
    """Samples per second, of the median step after the first ones."""
    return BATCH / statistics.median(seconds[WARM_UP:])


def row(name: str, runs: Sequence[dict[str, Any]]) -> str:
    """One line of the table."""
    speed = statistics.median(rate(one["seconds"]) for one in runs)
    memory = statistics.median(one["peak_rss_mib"] for one in runs)
    return f"| {name} | {speed:.2f} | {1000 * BATCH / speed:.0f} ms | {memory:.0f} MiB |"


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", nargs=2, type=Path, metavar=("BASE", "PAIRS"), help="run our side alone")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: all cores)")
    args = parser.parse_args()
    if args.ours:
        base, pairs = args.ours
        print(json.dumps(ours(base, pairs, args.steps, args.threads)))
        return
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        base, pairs = Path(folder) / "base", Path(folder) / "pairs"
        make_base(base)
        command(["dataset", "fill50k", str(pairs), "--count", str(PAIRS), "--size", str(SIZE)])
        steps = ("--steps", str(args.steps), "--threads", str(args.threads))
        first = run(__file__, "--ours", base, pairs, *steps)
        found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
        for _ in range(args.rounds):
            found[0].append(run(__file__, "--ours", base, pairs, *steps))
            found[1].append(run(here / "diffusers_loop.py", base, pairs, "--size", str(SIZE), *steps))
    mine, theirs = found
    speed = statistics.median(rate(a["seconds"]) / rate(b["seconds"]) for a, b in zip(mine, theirs, strict=True))
    memory = statistics.median(a["peak_rss_mib"] / b["peak_rss_mib"] for a, b in zip(mine, theirs, strict=True))
    write_section(
        f"Training on {args.threads} CPU thread{'s' if args.threads > 1 else ''}: ours against diffusers' example",
        [
            f"A UNet of (64, 128, 256, 256) channels, {SIZE}x{SIZE} pictures, batch {BATCH}, float32, "
            f"{args.steps} steps,",
            f"{args.rounds} runs of either side in turns. Making the caches of {PAIRS} pairs took "
            f"{first['cache']:.1f} s, once.",
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
