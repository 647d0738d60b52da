"""`controlnet-kit preprocessors list | fetch | check`: the files of weights of learned preprocessors."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...cn_core.errors import WeightsError
from ...cn_core.preprocess.learned.detector import LearnedPreprocessor
from ...cn_core.preprocess.learned.registry import LEARNED
from ...cn_core.preprocess.weights import Hub, Weights, damage, sha256_of
from ..data.weights import default_folder
from . import fetching

Entry = LearnedPreprocessor[Any]

PERMISSIVE = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT")
"""First words of licences that allow any use, commercial use included."""
SETS = {
    "all-permissive": "all files under licences that allow any use",
    "packaged": "those of them in pip and npm packages",
}


def main(arguments: Sequence[str]) -> int:
    """Run one of the three; returns the exit code."""
    args = parser().parse_args(arguments)
    match args.action:
        case "list":
            return show(LEARNED, args.folder)
        case "check":
            return check(LEARNED, args.folder)
        case _:
            wanted = files(LEARNED, args.names, args.only)
            return fetch(wanted, args.folder, args.source, ask=not args.yes)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    result = argparse.ArgumentParser(
        prog="controlnet-kit preprocessors", description="Weights of learned preprocessors."
    )
    actions = result.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="all of them: node, files, size, licence, and whether they are there")
    checking = actions.add_parser("check", help="read all files that are there and compare their hashes")
    getting = actions.add_parser("fetch", help="get the files of some of them")
    sets = "; ".join(f"{name}: {text}" for name, text in SETS.items())
    getting.add_argument("names", nargs="+", metavar="NAME", help=f"names of `list`, or {sets}")
    getting.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="take what is in this folder")
    getting.add_argument(
        "--only", nargs="+", default=(), metavar="FILE", help="these files or folders of them, not all"
    )
    getting.add_argument("--yes", action="store_true", help="do not ask")
    for action in (listing, checking, getting):
        action.add_argument(
            "--folder", type=Path, default=default_folder(), help="where the files are (default: %(default)s)"
        )
    return result


def unique(entries: Iterable[Entry]) -> tuple[Weights, ...]:
    """Their files, each once, in order."""
    return tuple({weights.file: weights for entry in entries for weights in entry.weights}.values())


def permissive(weights: Weights) -> bool:
    """Whether the licence allows any use."""
    return weights.licence.startswith(PERMISSIVE)


def files(table: Mapping[str, Entry], names: Sequence[str], only: Sequence[str]) -> tuple[Weights, ...]:
    """The files that the names stand for; `only` are files or folders of them.

    WeightsError: no such name, file or folder; the nearest one is named.
    """
    found: dict[str, Weights] = {}
    for name in names:
        if name in SETS:
            chosen = tuple(weights for weights in unique(table.values()) if permissive(weights))
            if name == "packaged":
                chosen = tuple(weights for weights in chosen if not isinstance(weights.origin, Hub))
        else:
            chosen = unique((table[known(name, (*table, *SETS), "preprocessor with weights")],))
        found |= {weights.file: weights for weights in chosen}
    places = [*dict.fromkeys(weights.folder for weights in found.values() if weights.folder), *found]
    keep = {known(place, places, "file or folder of these preprocessors") for place in only or places}
    return tuple(weights for weights in found.values() if keep & {weights.file, weights.folder})


def known(name: str, names: Iterable[str], what: str) -> str:
    """The name itself. WeightsError: it is none of the names."""
    choices = tuple(names)
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=1, cutoff=0)
        raise WeightsError(
            f"{name!r} is no {what}. Did you mean {near[0] if near else 'none'!r}? All: {', '.join(choices)}."
        )
    return name


def fetch(wanted: Sequence[Weights], folder: Path, source: Path | None, *, ask: bool) -> int:
    """Say what is missing or damaged, ask, and get it; 1 when the answer is no."""
    if source is not None and not source.is_dir():
        raise WeightsError(f"--from {source} is no folder. Give the folder that has the files.")
    needed = [w for w in wanted if not (path := folder / w.file).is_file() or damage(w, path)]
    if not needed:
        print(f"All {len(wanted)} files are in {folder}.")
        return 0
    rows = [(w.file, megabytes([w]), w.licence, fetching.source(w)) for w in needed]
    print(table_text(("file", "size", "licence", "from"), rows))
    print(f"Into {folder}", flush=True)
    if ask and not agreed(f"Fetch {len(needed)} files, {megabytes(needed)}? [y/N] "):
        print("Nothing was fetched.")
        return 1
    fetching.fetch(needed, folder, source)
    return 0


def agreed(question: str) -> bool:
    """Whether the user types yes; no terminal means no."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def show(table: Mapping[str, Entry], folder: Path) -> int:
    """Print the table. Sizes are compared here, hashes by `check`."""
    rows: list[tuple[str, ...]] = []
    for entry in table.values():
        there = sum((folder / w.file).is_file() for w in entry.weights)
        licences = ", ".join(dict.fromkeys(w.licence for w in entry.weights))
        counts = f"{there} of {len(entry.weights)}"
        rows.append((entry.name, entry.node_id, counts, megabytes(entry.weights), licences, state(entry, folder)))
    print(table_text(("name", "node", "files", "size", "licence", "state"), rows))
    return 0


def state(entry: Entry, folder: Path) -> str:
    """Whether it would run with its default settings, as far as sizes of files tell."""
    if missing := [name for name in entry.packages if find_spec(name.replace("-", "_")) is None]:
        return f"not installed: {', '.join(missing)}"
    paths = {folder / w.file: w.size for w in entry.files()}
    if any(path.is_file() and size and path.stat().st_size != size for path, size in paths.items()):
        return "damaged"
    return "ready" if all(path.is_file() for path in paths) else "missing"


def check(table: Mapping[str, Entry], folder: Path) -> int:
    """Read every file that is there; 1 when one is damaged."""
    there = [(w, path) for w in unique(table.values()) if (path := folder / w.file).is_file()]
    failed = 0
    for weights, path in there:
        problem = damage(weights, path)
        failed += problem is not None
        good = "ok" if weights.sha256 else f"sha256 {sha256_of(path)}; none is known to compare it with"
        print(f"{weights.file}: {f'damaged: {problem}' if problem else good}", flush=True)
    print(f"{len(there)} files in {folder}, {failed} damaged.")
    return 1 if failed else 0


def megabytes(files: Sequence[Weights]) -> str:
    """Their size together; "?" when one is unknown."""
    return f"{sum(w.size for w in files) / 1e6:.1f} MB" if all(w.size for w in files) else "?"


def table_text(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell."""
    lines = [heads, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
