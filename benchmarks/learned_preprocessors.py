"""How long does the next queue run take with a network, against controlnet_aux?

Ours is what the nodes call. Theirs loads the network in every run, as the pack of their nodes does, and goes through a
batch in a loop. Both have the same weights, random ones saved in the public format: the time does not depend on them.
One picture that is new in every run, and a batch of which one picture is.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from comfy_in_process import make_importable
from comfy_server import Installation
from controlnet_kit.cn_core.preprocess.learned import controlnet_hed, mlsd_torch
from controlnet_kit.cn_core.preprocess.learned.aux_package import aux_module
from controlnet_kit.cn_core.preprocess.learned.detector import LearnedPreprocessor
from results import write_section
from skimage import data
from timing import THREADS, Comparison, compare
from torch import Tensor

SIZE, BATCH = 512, 4
PAIRS, BATCH_PAIRS = 5, 3

base_directory = make_importable(Installation.from_environment())
import folder_paths  # noqa: E402  only now importable
from controlnet_kit.nodes.learned import node_of  # noqa: E402
from controlnet_kit.nodes.shelf import WEIGHTS, Shelf  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network that both have."""

    entry: LearnedPreprocessor[Any]
    network: Callable[[], torch.nn.Module]
    theirs: Any
    """controlnet_aux's class, with `from_pretrained`."""


def cases() -> tuple[Case, ...]:
    """Without hashes, as the weights are our own."""
    hed, mlsd = aux_module("hed"), aux_module("mlsd")
    return (
        Case(entry=any_file(controlnet_hed.ENTRIES[0]), network=hed.ControlNetHED_Apache2, theirs=hed.HEDdetector),
        Case(entry=any_file(mlsd_torch.ENTRIES[0]), network=mlsd.MobileV2_MLSD_Large, theirs=mlsd.MLSDdetector),
    )


def any_file(entry: LearnedPreprocessor[Any]) -> LearnedPreprocessor[Any]:
    """The same that takes a file whatever is in it."""
    return replace(entry, weights=tuple(replace(file, size=0, sha256=None) for file in entry.weights))


def measured(case: Case, folder: Path) -> tuple[Comparison, Comparison]:
    """(a new picture; a batch with a new picture): theirs and ours."""
    torch.save(case.network().state_dict(), folder / case.entry.weights[0].file)
    node: Any = node_of(case.entry, Shelf())
    values = vars(case.entry.settings())
    photo = cv2.resize(data.astronaut(), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    numbers = count(BATCH)

    def images(batch: int) -> Tensor:
        """Of a batch the first is new; those behind it are always the same."""
        frames = [np.roll(photo, next(numbers), axis=1), *(np.roll(photo, shift, axis=0) for shift in range(1, batch))]
        return torch.from_numpy(np.stack(frames)).float() / 255

    def theirs(batch: Tensor) -> Tensor:
        detector = case.theirs.from_pretrained(str(folder))
        hints = [detector((image.numpy() * 255).astype(np.uint8), output_type="np") for image in batch]
        return torch.from_numpy(np.stack(hints)).float() / 255

    def ours(batch: Tensor) -> Tensor:
        return node.PREPARE_CLASS_CLONE({"hidden_inputs": {}}).execute(image=batch, resolution=0, **values).result[0]

    if ours(images(1)).shape != theirs(images(1)).shape:
        sys.exit(f"{case.entry.name}: the two give pictures of different sizes.")
    one = compare(lambda: theirs(images(1)), lambda: ours(images(1)), PAIRS)
    return one, compare(lambda: theirs(images(BATCH)), lambda: ours(images(BATCH)), BATCH_PAIRS)


def row(name: str, comparisons: tuple[Comparison, Comparison]) -> str:
    """One line."""
    cells = [f"{theirs:.2f} s | {ours:.2f} s" for theirs, ours in (one.medians for one in comparisons)]
    ratios = [f"{one.wall:.2f}" for one in comparisons]
    return f"| {name} | {cells[0]} | {ratios[0]} | {cells[1]} | {ratios[1]} |"


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        folder_paths.add_model_folder_path(WEIGHTS, folder)
        rows = [row(case.entry.name, measured(case, Path(folder))) for case in cases()]
    lines = [
        f"Runs after the first: controlnet_aux's from_pretrained and call against our node. One new {SIZE}x{SIZE}",
        f"picture (median of {PAIRS} pairs), and a batch of {BATCH} of which one is new (median of {BATCH_PAIRS}).",
        "",
        "| network | theirs | ours | theirs / ours | batch, theirs | batch, ours | theirs / ours |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    write_section("Preprocessors with networks", lines)


if __name__ == "__main__":
    main()
