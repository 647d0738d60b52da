"""How long do preprocessors take, against the OpenCV and NumPy calls that they are built on, and against other packs?

One photograph of 512x512 by itself, and a batch of sixteen. Ours do more than the plain calls: they refuse what is not
finite, clamp what is out of range, and hand over a batch.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from comfy_in_process import make_importable
from comfy_server import Installation
from controlnet_kit.cn_core.preprocess.registry import PREPROCESSORS
from plain_preprocessors import PLAIN, Frame
from results import write_section
from skimage import data
from timing import THREADS, Comparison, compare
from torch import Tensor

SIZE, BATCH = 512, 16
PAIRS, BATCH_PAIRS = 25, 5
AT_MOST, AT_LEAST = 1.15, 1.6
"""What we want: ours over plain for one picture; the loop over ours for a batch."""

make_importable(Installation.from_environment())
from comfy_extras.nodes_canny import Canny  # noqa: E402  only now importable


def photographs() -> Tensor:
    """16 512 512 3 float32 in [0, 1]: a photograph and its neighbours in a slow pan."""
    photo = cv2.resize(data.astronaut(), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.stack([np.roll(photo, 4 * index, axis=1) for index in range(BATCH)])).float() / 255


def one_by_one(images: Tensor, draw: Callable[[Frame], Frame]) -> Tensor:
    """A batch as controlnet_aux and the pack of its nodes go through it, in a Python loop.

    Each picture is made eight-bit, resized to where it is already, padded to a multiple of 64 and cropped again; the
    result is made eight-bit, and floats at the end.
    """
    results: list[Tensor] = []
    for image in images:
        pixels = np.asarray(image.numpy() * 255, dtype=np.uint8)
        resized = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        padded = np.ascontiguousarray(np.pad(resized, ((0, -SIZE % 64), (0, -SIZE % 64), (0, 0)), mode="edge"))
        hint = (draw(padded.astype(np.float32) / 255) * 255).clip(0, 255).astype(np.uint8)
        results.append(torch.from_numpy(np.ascontiguousarray(hint[:SIZE, :SIZE]).astype(np.float32) / 255))
    return torch.stack(results)


def controlnet_aux() -> Mapping[str, Callable[[Frame], Frame]]:
    """Those of controlnet_aux's own classes that need no weights: H W 3 uint8 -> H W 3 uint8."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from controlnet_aux import CannyDetector, ContentShuffleDetector, LineartStandardDetector
    found: dict[str, Any] = {
        "canny": CannyDetector(),
        "lineart": LineartStandardDetector(),
        "shuffle": ContentShuffleDetector(),
    }
    return {name: partial(detector, output_type="np") for name, detector in found.items()}


def through_aux(images: Tensor, detect: Callable[[Frame], Frame]) -> Tensor:
    """A batch through a class of controlnet_aux, which takes one picture."""
    hints = [detect(np.asarray(image.numpy() * 255, dtype=np.uint8)) for image in images]
    return torch.stack([torch.from_numpy(hint.astype(np.float32) / 255) for hint in hints])


def measured(name: str, images: Tensor, aux: Mapping[str, Callable[[Frame], Frame]]) -> tuple[Comparison, Comparison]:
    """(one picture: ours and plain; a batch: one by one and ours)."""
    entry, draw = PREPROCESSORS[name], PLAIN[name]
    loop = partial(through_aux, images, aux[name]) if name in aux else partial(one_by_one, images, draw)

    def ours(batch: Tensor) -> Tensor:
        return entry(batch.movedim(-1, 1)).movedim(1, -1).contiguous()

    single = compare(lambda: ours(images[:1]), lambda: torch.from_numpy(draw(images[0].numpy()))[None], PAIRS)
    return single, compare(loop, lambda: ours(images), BATCH_PAIRS)


def row(name: str, single: Comparison, batch: Comparison) -> str:
    """One line."""
    (ours, plain), (loop, whole) = single.medians, batch.medians
    return (
        f"| {name} | {1000 * ours:.2f} ms | {1000 * plain:.2f} ms | {mark(single.wall, single.wall <= AT_MOST)} "
        f"| {1000 * loop / BATCH:.2f} ms | {1000 * whole / BATCH:.2f} ms | {mark(batch.wall, batch.wall >= AT_LEAST)} |"
    )


def mark(ratio: float, good: bool) -> str:
    """A ratio; bold where it is as wanted."""
    return f"**{ratio:.2f}**" if good else f"{ratio:.2f}"


def against_core(images: Tensor) -> str:
    """Our Canny and the host's on one picture."""
    canny: Any = Canny
    ours = PREPROCESSORS["canny"]
    times = compare(lambda: ours(images[:1].movedim(-1, 1)), lambda: canny.execute(images[:1], 0.4, 0.8), pairs=5)
    mine, core = times.medians
    return f"ComfyUI's own Canny node (kornia) takes {1000 * core:.0f} ms, ours {1000 * mine:.1f} ms."


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *PLAIN], help="none: all, and the results are written")
    chosen = parser.parse_args().names
    torch.set_num_threads(THREADS)
    images, aux = photographs(), controlnet_aux()
    rows: list[str] = []
    with torch.inference_mode():
        for name in chosen or PREPROCESSORS:
            rows.append(row(name, *measured(name, images, aux)))
            print(rows[-1], file=sys.stderr, flush=True)
        core = against_core(images)
    if chosen:
        print(core)
        return
    lines = [
        f"One photograph of {SIZE}x{SIZE}, median of {PAIRS} pairs: ours against the plain OpenCV and NumPy calls with",
        f"the conversions they need (wanted: at most {AT_MOST}). Then a batch of {BATCH}, the time for each: a loop",
        f"({', '.join(aux)}: over controlnet_aux's own class; the others: as comfyui_controlnet_aux has it, around the",
        f"plain calls) against ours (wanted: at least {AT_LEAST}). Bold: as wanted. OpenCV has",
        f"{cv2.getNumThreads()} threads.",
        "",
        "| preprocessor | ours | plain | ours / plain | loop, each | ours, each | loop / ours |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        core,
    ]
    write_section("Preprocessors without weights", lines)


if __name__ == "__main__":
    main()
