"""`controlnet-kit lint DATA`: what is wrong with a data set, before it is trained on."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from ..config import BaseConfig, DataConfig
from ..data.formats.open import scan
from ..data.hints import maker_of
from ..data.lint import sheet
from ..data.lint.run import LintOptions, look_over, remaker
from ..data.origin import recorded
from ..data.pairs import Pairs
from ..errors import DataError
from .bounds import at_least

FORMATS = typing.get_args(typing.get_type_hints(DataConfig)["format"])


def main(arguments: Sequence[str]) -> int:
    """Writes report.txt, report.json, sheet.jpg and quarantine.txt; returns 1 when something is wrong."""
    args = parser().parse_args(arguments)
    at_least(0, resolution=args.resolution, sample=args.sample)
    folder = Path(args.out or f"lint-{Path(args.data).name}")
    if folder.exists() and any(folder.iterdir()) and not (folder / "report.json").is_file():
        raise DataError(f"{folder} is not empty and holds no report. Choose another folder with --out.")
    config = DataConfig(path=args.data, format=args.format)
    maker = maker_of(args.preprocessor, {}, {}) if args.preprocessor else remaker(recorded(config))
    pairs = scan(config)
    if not len(pairs) and not pairs.faults:
        raise DataError(f"{args.data} has no pairs of pictures. Look at the path and the format.")
    given = not len(pairs) or pairs[0].hint is not None
    options = LintOptions(
        sample=args.sample,
        resolution=args.resolution,
        given=given,
        maker=maker,
        words_lost=counter(args.base) if args.base else None,
    )
    return write(pairs, options, folder)


def write(pairs: Pairs, options: LintOptions, folder: Path) -> int:
    """Look, write, and say where."""
    with tqdm(total=len(pairs), unit="pair", disable=None) as bar:

        def show(_: str, done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        looked = look_over(pairs, options, progress=show)
    folder.mkdir(parents=True, exist_ok=True)
    report = looked.report
    (folder / "report.txt").write_text(report.text() + "\n", encoding="utf-8")
    (folder / "report.json").write_text(report.json() + "\n", encoding="utf-8")
    (folder / "quarantine.txt").write_text("".join(f"{key}\n" for key in report.quarantine), encoding="utf-8")
    sheet.save(looked, folder / "sheet.jpg")
    print(report.text())
    print(
        f"Wrote report.txt, report.json, sheet.jpg and quarantine.txt ({len(report.quarantine)} pairs) into {folder}."
    )
    return 1 if report.errors else 0


def counter(path: str) -> Callable[[str], int]:
    """How many words a base's text encoder loses."""
    from ..bases.open import open_base

    return open_base(BaseConfig(path=path)).text.words_lost


def parser() -> argparse.ArgumentParser:
    """The flags."""
    result = argparse.ArgumentParser(prog="controlnet-kit lint", description="Find what is wrong with a data set.")
    result.add_argument(
        "data", metavar="DATA", help="the folder, file or name of the data set; nothing in it is changed"
    )
    result.add_argument("--format", choices=FORMATS, default="auto", help="how it is laid out (default: %(default)s)")
    result.add_argument(
        "--preprocessor",
        metavar="NAME",
        help="what the hints were made with: they are made again and compared (default: what annotate's note says)",
    )
    result.add_argument("--base", metavar="PATH", help="the base that is trained on: finds captions that are too long")
    result.add_argument(
        "--resolution", type=int, default=0, metavar="PX", help="of the training: finds pictures that are far smaller"
    )
    result.add_argument("--sample", type=int, default=0, metavar="N", help="look at so many pairs only; 0: all")
    result.add_argument("--out", metavar="FOLDER", help="for the report (default: lint-NAME right here)")
    return result
