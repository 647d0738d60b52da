"""Make everything in assets/ from nothing: autoencoder, base, two ControlNets. About two hours on two CPU cores."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from safetensors.torch import load_file, save_file

from .. import cli
from . import autoencoder, base

CONTROLNETS = (("canny", 3600), ("silhouette", 800))
"""Condition and steps of each shipped ControlNet."""


def main() -> None:
    """Command line: every stage whose output is missing."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("assets", type=Path, help="folder for the finished files")
    parser.add_argument("--work", type=Path, required=True, help="folder for float32 weights and the cache")
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
            flags = ["--condition", condition, "--base", str(args.assets), "--cache", str(cache), "--steps", str(steps)]
            cli.main([*flags, "--output", str(output)])


if __name__ == "__main__":
    main()
