"""Hints for pictures: a folder of pairs grows beside them, by as many processes as there are cores, or by a GPU.

OUT/images has the pictures (links to the files, or copies), OUT/hints their hints at the pictures' size, OUT/captions
what captions there were. A hint that is there is not made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import torch
from PIL import Image

from ...cn_core.image import resize_short_side
from ..config import Value
from ..errors import DataError
from ..whole_files import write_whole
from .augment import cut_hint, place
from .decoding import PictureError, Pixels
from .hints import HintMaker, Range, maker_of, to_images, to_pixels
from .lending import put
from .notes import read_note
from .pairs import Pair, Pairs, each
from .pictures import Encoded, File
from .processes import keep_to_one_thread, processes

NOTE = "annotate.json"
TASK = 8
"""Pictures of a task: progress is told after each of them."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """How hints are made."""

    out: Path
    preprocessor: str
    values: Mapping[str, Value] = field(default_factory=dict[str, Value], hash=False)
    ranges: Mapping[str, Range] = field(default_factory=dict[str, Range], hash=False)
    seed: int = 0
    resolution: int = 0
    """Short side at which they are made, before they take the picture's size; 0: the picture's."""
    folders: tuple[Path, ...] = ()
    """Of weights; none: where the command line keeps them."""
    link: bool = False
    """Whether pictures are linked, not copied."""
    device: str = "cpu"
    """Where a preprocessor's network works, as torch names it."""

    def maker(self) -> HintMaker:
        """The preprocessor. Raises DataError for names and values that it does not know."""
        return maker_of(self.preprocessor, self.values, self.ranges, seed=self.seed, folders=self.folders or None)

    def note(self) -> dict[str, Any]:
        """What all hints of a folder have in common."""
        ranges = {name: list(limits) for name, limits in self.ranges.items()}
        return {
            **{"preprocessor": self.preprocessor, "values": dict(self.values), "ranges": ranges},
            **{"seed": self.seed, "resolution": self.resolution},
        }


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of a picture."""

    key: str
    problem: str | None = None


Work: TypeAlias = Callable[[Sequence[Pair]], list[Done]]
Mapper: TypeAlias = Callable[[Work, Sequence[Sequence[Pair]]], Iterator[list[Done]]]
"""Does some work on each task, anywhere, in any order."""


def annotate(pairs: Pairs, job: Job, mapper: Mapper) -> Iterator[Done]:
    """Make the hints that are missing; yields each picture when it is done. Pictures that cannot be read are named.

    Raises DataError for a folder that is not ours or has hints made otherwise, ControlNetKitError for a preprocessor
    that cannot be run, before anything is written.
    """
    job.maker().check()
    everything = list(each(pairs))
    results = mapper(
        partial(annotate_some, job), [everything[at : at + TASK] for at in range(0, len(everything), TASK)]
    )
    claim(job)
    return (done for some in results for done in some)


def in_processes(workers: int, device: str = "cpu") -> Mapper:
    """On this machine; 0: one process for each core, or one for a GPU."""

    def run(work: Work, tasks: Sequence[Sequence[Pair]]) -> Iterator[list[Done]]:
        with processes(workers or (0 if device == "cpu" else 1)) as pool:
            yield from pool.map(work, tasks)

    return run


def on_ray(device: str = "cpu") -> Mapper:
    """On a cluster through Ray Data, whose machines see the same folders; each process has a GPU unless on the CPU.

    What this gives raises DataError where Ray is not installed.
    """

    def run(work: Work, tasks: Sequence[Sequence[Pair]]) -> Iterator[list[Done]]:
        try:
            import ray.data  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise DataError(
                "--ray needs a package that is not installed. Run: python -m pip install 'ray[data]'"
            ) from error
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows: Any = ray.data.from_items([{"task": list(task)} for task in tasks])  # pyright: ignore[reportUnknownVariableType]
        gpus = {} if device == "cpu" else {"num_gpus": 1}
        results = rows.flat_map(lambda row: [vars(done) for done in work(row["task"])], **gpus).iter_rows()
        return ([Done(**row)] for row in results)

    return run


def annotate_some(job: Job, pairs: Sequence[Pair]) -> list[Done]:
    """The pictures of a task."""
    maker = ready(job)
    return [annotate_one(job, maker, pair) for pair in pairs]


@lru_cache(maxsize=1)
def ready(job: Job) -> HintMaker:
    """The preprocessor, its network loaded and on the device: once in each process."""
    keep_to_one_thread()
    maker = job.maker()
    put(maker, torch.device(job.device))
    return maker


def annotate_one(job: Job, maker: HintMaker, pair: Pair) -> Done:
    """One picture, unless its hint is there."""
    if PurePosixPath(pair.key).is_absolute() or ".." in PurePosixPath(pair.key).parts:
        return Done(key=pair.key, problem=f"{pair.key} leads out of the folder.")
    hint = job.out / "hints" / f"{pair.key}.png"
    if hint.is_file():
        return Done(key=pair.key)
    try:
        pixels = pair.image.read()
    except PictureError as error:
        return Done(key=pair.key, problem=str(error))
    keep_image(pair, pixels, job)
    if pair.caption:
        write_text(job.out / "captions" / f"{pair.key}.txt", pair.caption + "\n")
    at_resolution = to_pixels(resize_short_side(to_images([pixels]), job.resolution))
    size = pixels.shape[:2]
    (made,) = maker(at_resolution, [pair.key])
    made = cut_hint(made, place(size, size))
    hint.parent.mkdir(parents=True, exist_ok=True)
    # The hint comes last: it says that the pair is whole.
    write_whole(hint, partial(Image.fromarray(made).save, format="PNG"))
    return Done(key=pair.key)


def keep_image(pair: Pair, pixels: Pixels, job: Job) -> None:
    """The picture in OUT/images: its own file if it is one, linked or copied, else a PNG."""
    path = job.out / "images" / f"{pair.key}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(pair.image, Encoded) or not isinstance(pair.image.source, File):
        write_whole(path, partial(Image.fromarray(pixels).save, format="PNG"))
        return
    file = pair.image.source.path.absolute()
    if job.link:
        write_whole(path.with_suffix(file.suffix), lambda place: place.symlink_to(file))
    else:
        write_whole(path.with_suffix(file.suffix), partial(shutil.copyfile, file))


def write_text(path: Path, text: str) -> None:
    """A small file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda place: place.write_text(text, encoding="utf-8"))


def claim(job: Job) -> None:
    """Make the folder ours, or see that it is and that its hints are made in the same way."""
    note = job.out / NOTE
    if note.is_file():
        had = read_note(note, *job.note())
        if differing := [name for name, value in job.note().items() if had.get(name) != value]:
            raise DataError(
                f"The hints in {job.out} were made with another {', '.join(differing)}: {had}. Choose another folder."
            )
    elif job.out.exists() and any(job.out.iterdir()):
        raise DataError(f"{job.out} is not empty, and not from this command. Choose another folder.")
    else:
        write_text(note, json.dumps(job.note(), indent=2) + "\n")
