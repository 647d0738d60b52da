"""`controlnet-kit annotate IN OUT --preprocessor canny`: pairs from pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ...cn_core.preprocess.learned.detector import LearnedPreprocessor
from ..config import DataConfig, Value
from ..data.annotate import Job, annotate, in_processes, on_ray
from ..data.formats.open import scan
from ..data.hints import Range, entry_of, maker_of
from ..errors import DataError
from ..tables import nearest, parse
from .bounds import at_least
from .lint import FORMATS


def main(arguments: Sequence[str]) -> int:
    """Returns 1 when some of the pictures could not be used; run again after an interruption it goes on."""
    args = parser().parse_args(arguments)
    at_least(0, workers=args.workers, resolution=args.resolution)
    check_apart(args.input, args.out)
    device = device_for(args.preprocessor, args.device, here=not args.ray)
    values, ranges = settings(args.preprocessor, args.set)
    job = Job(
        out=args.out,
        preprocessor=args.preprocessor,
        values=values,
        ranges=ranges,
        seed=args.seed,
        resolution=args.resolution,
        folders=(args.weights,) if args.weights else (),
        link=args.link,
        device=device,
    )
    pairs = scan(DataConfig(path=args.input, format=args.format, hints=args.preprocessor))
    problems = [f"{fault.key}: {fault.text}." for fault in pairs.faults]
    if not len(pairs):
        raise DataError(f"{args.input} has no pictures. {' '.join(problems[:1]) or 'Look at the path and the format.'}")
    done = annotate(pairs, job, on_ray(device) if args.ray else in_processes(args.workers, device))
    for one in tqdm(done, total=len(pairs), unit="picture", disable=None):
        problems += [one.problem] if one.problem else []
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    count = len(pairs) + len(pairs.faults)
    print(f"{count - len(problems)} of {count} pictures have their hints in {args.out}.")
    return 1 if problems else 0


def check_apart(source: str, out: Path) -> None:
    """Raise DataError for a folder in the one that is read: run again, the command would read what it wrote."""
    if source and Path(source).is_dir() and out.resolve().is_relative_to(Path(source).resolve()):
        raise DataError(f"{out} lies in {source}, which is read. Choose a folder that lies elsewhere.")


def device_for(preprocessor: str, wanted: str, *, here: bool) -> str:
    """Where its network works: "auto" is this machine's GPU, if it has one. Raises DataError for one it has not."""
    if not isinstance(entry_of(preprocessor), LearnedPreprocessor):
        return "cpu"
    if wanted == "auto":
        return "cuda" if here and torch.cuda.is_available() else "cpu"
    if wanted != "cpu" and here and not torch.cuda.is_available():
        raise DataError(
            f"--device {wanted}: PyTorch finds no GPU on this machine. Use cpu, or install its CUDA version."
        )
    return wanted


def settings(preprocessor: str, words: Sequence[str]) -> tuple[Mapping[str, Value], Mapping[str, Range]]:
    """From NAME=VALUE and NAME=[LOW,HIGH]: fixed and drawn ones. Raises DataError for a name that is none."""
    values: dict[str, Value] = {}
    ranges: dict[str, Range] = {}
    known = [one.name for one in fields(maker_of(preprocessor, {}, {}).entry.settings)]
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in known:
            raise DataError(
                f"--set {word}: expected NAME=VALUE with a setting of {preprocessor}: {', '.join(known)}."
                f"{nearest(name, known)}"
            )
        value = value_of(text, word)
        if isinstance(value, list):
            ranges[name] = (value[0], value[1])
        else:
            values[name] = value
    return values, ranges


def value_of(text: str, word: str) -> Value | list[float]:
    """A number, true or false, [low, high], or else the text itself. Raises DataError for other values of TOML."""
    if text[:1] not in "[-+.0123456789" and text not in ("true", "false"):
        return text
    value = parse(f"value = {text}", f"--set {word}")["value"]
    limits: list[Any] | None = value if isinstance(value, list) else None
    if limits is None and type(value) in (bool, int, float):
        return value
    if limits is None or len(limits) != 2 or not all(type(limit) in (int, float) for limit in limits):
        raise DataError(f"--set {word}: expected a value, or two numbers in brackets.")
    return limits


def parser() -> argparse.ArgumentParser:
    """The flags."""
    result = argparse.ArgumentParser(prog="controlnet-kit annotate", description="Make hints for pictures.")
    result.add_argument("input", metavar="IN", help="a folder of pictures, or a data set in any format; is not changed")
    result.add_argument(
        "out", type=Path, metavar="OUT", help="a new folder outside of IN, or one that was begun; becomes pairs"
    )
    result.add_argument("--preprocessor", required=True, metavar="NAME", help="which one, such as canny")
    result.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="its settings; NAME=[LOW,HIGH] is drawn for each picture",
    )
    result.add_argument("--seed", type=int, default=0, metavar="N", help="of drawn settings")
    result.add_argument(
        "--resolution",
        type=int,
        default=0,
        metavar="PX",
        help="short side at which hints are made, before they take the picture's size; 0: the picture's",
    )
    result.add_argument("--format", choices=FORMATS, default="auto", help="of IN (default: %(default)s)")
    result.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes; 0: one for each core, or one for a GPU"
    )
    result.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="of a preprocessor with a network; auto: this machine's GPU, if it has one (default: %(default)s)",
    )
    result.add_argument(
        "--ray", action="store_true", help="on a cluster through Ray Data instead, on its GPUs with --device cuda"
    )
    result.add_argument("--weights", type=Path, metavar="FOLDER", help="of learned preprocessors")
    result.add_argument("--link", action="store_true", help="link the pictures instead of copying them")
    return result
