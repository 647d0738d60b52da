"""Make everything in assets/ from nothing: autoencoder, base, two ControlNets. About two hours on two CPU cores."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from ..bases.tiny import as_base, load
from ..config import DataConfig, ObjectiveConfig, OptimizerConfig, RunConfig, TrainConfig
from ..events import Finished, StepDone
from ..loop import Trainer
from ..targets.make import make_target
from . import autoencoder, base
from .cache import Condition, load_or_build
from .samples import samples

CONTROLNETS: tuple[tuple[Condition, int], ...] = (("canny", 3600), ("silhouette", 800))
"""Condition and steps of each shipped ControlNet."""
COMPOSITIONS = 30_000


def recipe(condition: Condition, steps: int, output: Path) -> TrainConfig:
    """How the shipped ControlNets are trained."""
    return TrainConfig(
        data=DataConfig(
            format="tiny-world",
            hints="canny" if condition == "canny" else "given",
            condition=condition,
            resolution=128,
            validation=0,
        ),
        objective=ObjectiveConfig(prompt_dropping=0.3, min_snr_gamma=5.0),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="one_cycle", ema=0.998),
        run=RunConfig(output=str(output), steps=steps, batch=32, seed=3, licence="Apache-2.0"),
    )


def train(condition: Condition, steps: int, assets: Path, cache: Path, work: Path) -> Path:
    """Train one ControlNet on the base in `assets`; returns its file. Goes on where it was interrupted."""
    parts = load(assets)
    compositions = load_or_build(cache, parts.autoencoder, COMPOSITIONS)
    config, frozen = recipe(condition, steps, work / f"tiny_{condition}"), as_base(parts)
    data = samples(compositions, condition, parts.text_encoder)
    trainer = Trainer(frozen, data, make_target(frozen, config), config, Accelerator(cpu=True))
    path = trainer.output
    with tqdm(total=steps, desc=condition, mininterval=2) as progress:
        for event in trainer.run():
            progress.update(event.number - progress.n)
            if isinstance(event, StepDone) and event.loss is not None:
                progress.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
            if isinstance(event, Finished):
                path = event.path
    return path


def main() -> None:
    """Command line: every stage whose output is missing."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("assets", type=Path, help="folder for the finished files")
    parser.add_argument("--work", type=Path, required=True, help="folder for float32 weights, the cache, checkpoints")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    full, cache = args.work / "autoencoder.safetensors", args.work / "compositions.safetensors"
    if not full.is_file():
        autoencoder.main([str(full)])
    half = {name: value.half() for name, value in load_file(full).items()}
    args.assets.mkdir(parents=True, exist_ok=True)
    save_file(half, args.assets / "tiny_vae.safetensors")
    if not (args.assets / "tiny_unet.safetensors").is_file():
        base.main([str(args.assets), "--autoencoder", str(full), "--cache", str(cache)])
    for condition, steps in CONTROLNETS:
        output = args.assets / "controlnets" / f"tiny_{condition}.safetensors"
        if not output.is_file():
            output.parent.mkdir(exist_ok=True)
            train(condition, steps, args.assets, cache, args.work).replace(output)


if __name__ == "__main__":
    main()
