"""The command line: one flag for each field of `TrainConfig`, a progress bar, one file out."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time
import typing
from collections.abc import Sequence

from tqdm import tqdm

from .. import __version__
from ..cn_core.files import checkpoint
from ..cn_core.files.metadata import ControlNetMetadata
from ..cn_core.preprocess.canny import CannySettings
from . import base as bases
from .config import TrainConfig
from .loop import Trainer
from .tiny.cache import Compositions, load_or_build

log = logging.getLogger(__name__)


def parse(arguments: Sequence[str] | None) -> TrainConfig:
    """Flags to settings; exits with usage and reason on bad ones."""
    parser = argparse.ArgumentParser(
        prog="controlnet_kit.training", description="Train a ControlNet for the tiny base."
    )
    kinds = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        required = field.default is dataclasses.MISSING
        choices = typing.get_args(kinds[field.name]) or None
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=str if choices else kinds[field.name],
            choices=choices,
            required=required,
            default=None if required else field.default,
            help=None if required else f"default: {field.default}",
        )
    try:
        return TrainConfig(**vars(parser.parse_args(arguments)))
    except ValueError as error:
        parser.error(str(error))


def train(config: TrainConfig, base: bases.FrozenBase, data: Compositions) -> Trainer:
    """Run the loop behind a progress bar."""
    trainer = Trainer(base.unet, base.text_encoder, data, config)
    smooth = 0.0
    with tqdm(total=config.steps, desc=config.condition, mininterval=2) as progress:
        for step in trainer.run():
            smooth = step.loss if step.number == 1 else 0.98 * smooth + 0.02 * step.loss
            progress.set_postfix(loss=f"{smooth:.4f}", refresh=False)
            progress.update()
    return trainer


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write the file that `LoadControlNet` reads."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = parse(arguments)
    started = time.monotonic()
    base = bases.load(config.base)
    trainer = train(config, base, load_or_build(config.cache, base.autoencoder, config.compositions))
    metadata = ControlNetMetadata(
        version=__version__,
        family="SD-shaped",
        condition=config.condition,
        preprocessor="PreprocessCanny" if config.condition == "canny" else None,
        preprocessor_params=vars(CannySettings()) if config.condition == "canny" else None,
        hint_range=(0, 1),
        resolution=128,
        base_name="tiny-emoji",
        base_sha256=base.sha256,
        steps=config.steps,
        samples=config.steps * config.batch,
        licence="Apache-2.0",
    )
    tensors = {name: value.half().contiguous() for name, value in trainer.average().items()}
    config.output.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(config.output, tensors, metadata.to_strings())
    log.info("Wrote %s after %.0f s.", config.output, time.monotonic() - started)
