"""How many lines of one pixel survive when a large hint is resized to the picture, by our way and by the host's?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfy_in_process import make_importable
from comfy_server import Installation
from controlnet_kit.cn_core.image import resize_hint
from results import write_section
from timing import THREADS, seconds
from torch import Tensor

base_directory = make_importable(Installation.from_environment())

import comfy.utils  # noqa: E402  only now importable

PICTURE, SIDES = 1024, (2048, 3000)
"""Sides in pixels of the picture and of the hints."""
DRAWINGS, LINES = 5, 60
"""Of each kind, and in each."""
WHOLE = 0.99
"""Share of its length that a line has to keep."""
Lines = list[Tensor]
"""For each line the pixels that it covers, N 2 (row, column)."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way of drawing."""

    name: str
    draw: Callable[[int, torch.Generator], Lines]
    reach: int
    """How many rows above and below its place a line may be found."""


def ruled(side: int, generator: torch.Generator) -> Lines:
    """From edge to edge, half of them horizontal, half vertical."""
    places = torch.randperm(side // 8, generator=generator)[:LINES] * 8
    places, along = places + torch.randint(0, 8, (LINES,), generator=generator), torch.arange(side)
    rows = [torch.stack([place.expand(side), along], dim=1) for place in places[: LINES // 2]]
    return rows + [torch.stack([along, place.expand(side)], dim=1) for place in places[LINES // 2 :]]


def slanted(side: int, generator: torch.Generator) -> Lines:
    """From edge to edge, all at one angle between 5 and 40 degrees."""
    slope = math.tan(math.radians(5 + 35 * float(torch.rand((), generator=generator))))
    columns, starts = torch.arange(side), torch.linspace(-0.8 * slope * side, 0.9 * side, LINES)
    lines = [torch.stack([(start + slope * columns).round().long(), columns], dim=1) for start in starts]
    return [line[(line[:, 0] >= 0) & (line[:, 0] < side)] for line in lines]


KINDS = (
    Kind(name="horizontal and vertical", draw=ruled, reach=0),
    Kind(name="slanted", draw=slanted, reach=1),
)


def picture(side: int, lines: Lines) -> Tensor:
    """1 3 h w, white on black."""
    pixels = torch.zeros(side, side)
    for line in lines:
        pixels[line[:, 0], line[:, 1]] = 1
    return pixels.expand(1, 3, -1, -1)


def ours(hint: Tensor) -> Tensor:
    """What "crop" gives by default."""
    return resize_hint(hint, (PICTURE, PICTURE), "crop", "auto")


def hosts(hint: Tensor) -> Tensor:
    """What the host does to the hint of a ControlNet."""
    return comfy.utils.common_upscale(hint, PICTURE, PICTURE, "nearest-exact", "center")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one drawing."""

    whole: float
    """Share of the lines that are there from end to end."""
    width: float
    """Light for each pixel of the lines' length; 1 is right."""
    milliseconds: float


def outcome(resize: Callable[[Tensor], Tensor], side: int, lines: Lines, reach: int) -> Outcome:
    """Resize a drawing, look for its lines."""
    hint, results, scale = picture(side, lines), list[Tensor](), PICTURE / side
    took = seconds(lambda: results.append(resize(hint)))
    near = torch.nn.functional.max_pool2d(results[0][:, :1], (2 * reach + 1, 1), 1, (reach, 0))[0, 0]
    shares: list[float] = []
    for line in lines:
        rows, columns = ((line + 0.5) * scale).long().unbind(1)
        shares.append(float((near[rows, columns] > 0.5).float().mean()))
    return Outcome(
        whole=sum(share >= WHOLE for share in shares) / len(shares),
        width=float(results[0][0, 0].sum()) / (sum(map(len, lines)) * scale),
        milliseconds=1000 * took.wall,
    )


def row(kind: Kind, side: int) -> str:
    """One line of the table: means over the drawings, medians of the times."""
    drawings = [kind.draw(side, torch.Generator().manual_seed(seed)) for seed in range(DRAWINGS)]
    cells: list[str] = []
    for resize in (ours, hosts):
        found = [outcome(resize, side, lines, kind.reach) for lines in drawings]
        whole, width = statistics.mean(one.whole for one in found), statistics.mean(one.width for one in found)
        took = statistics.median(one.milliseconds for one in found)
        cells.append(f"**{whole:.0%}** | {width:.2f} | {took:.0f} ms")
    return f"| {kind.name}, {side} to {PICTURE} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    torch.set_num_threads(THREADS)
    write_section(
        "Lines of one pixel in hints that are resized",
        [
            f"{DRAWINGS} drawings of {LINES} lines, resized by us and as ComfyUI does it (nearest-exact). Kept is a",
            f"line of which {WHOLE:.0%} of the length is there; width is the light per pixel of length, 1 is right.",
            "",
            "| lines | kept by ours | width | time | kept by core | width | time |",
            "|---|---|---|---|---|---|---|",
            *(row(kind, side) for kind in KINDS for side in SIDES),
        ],
    )


if __name__ == "__main__":
    main()
