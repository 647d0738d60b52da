"""`controlnet-kit dataset fill50k OUT`: data sets that are drawn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ..data import fill50k
from ..errors import DataError
from .bounds import at_least


def main(arguments: Sequence[str]) -> int:
    """Write a set; run again after an interruption it goes on."""
    args = parser().parse_args(arguments)
    at_least(0, workers=args.workers)
    if args.count < 1 or args.size < 16 or args.size % 8:
        raise DataError(
            f"--count {args.count} --size {args.size}: expected at least 1 pair, of a multiple of 8 pixels."
        )
    for _ in tqdm(
        fill50k.write(args.out, args.count, args.size, workers=args.workers),
        total=args.count,
        unit="pair",
        disable=None,
    ):
        pass
    print(f"Wrote {args.count} pairs of {args.size}x{args.size} pixels into {args.out}.")
    return 0


def parser() -> argparse.ArgumentParser:
    """The flags."""
    result = argparse.ArgumentParser(prog="controlnet-kit dataset", description="Write a data set that is drawn.")
    sets = result.add_subparsers(dest="set", required=True)
    tutorial = sets.add_parser("fill50k", help="filled circles and their outlines, the ControlNet tutorial's set")
    tutorial.add_argument("out", type=Path, metavar="OUT", help="a new folder, or one that was begun")
    tutorial.add_argument("--count", type=int, default=50_000, metavar="N", help="pairs (default: %(default)s)")
    tutorial.add_argument("--size", type=int, default=512, metavar="PX", help="of a side (default: %(default)s)")
    tutorial.add_argument("--workers", type=int, default=0, metavar="N", help="processes; 0: one for each core")
    return result
