"""Pictures of numbers: heat maps, and a table of them.

Shapes: N maps, H W their size, R C rows and columns of a table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CELL, GAP = 48, 4


def heatmap(values: Tensor) -> Tensor:
    """N H W in [0, 1] -> N 3 H W in [0, 1]: black is 0, over red and yellow to near white (OpenCV's inferno)."""
    import cv2

    levels = (values.clamp(0, 1) * 255).round().byte().numpy()
    coloured = np.stack([cv2.applyColorMap(level, cv2.COLORMAP_INFERNO) for level in levels])  # N H W BGR
    return torch.from_numpy(coloured[..., ::-1].copy()).movedim(-1, 1) / 255


def table(rows: Sequence[Sequence[Tensor | None]], names: Sequence[str]) -> Tensor:
    """R rows of C maps (each H W in [0, 1], any size; None: empty) -> one picture 1 3 h w, each row under its name."""
    columns = max(len(row) for row in rows)
    margin = 12 + 8 * max(len(name) for name in names)
    step = CELL + GAP
    picture = torch.full((1, 3, len(rows) * step + GAP, margin + columns * step + GAP), 0.12)
    for r, row in enumerate(rows):
        top = GAP + r * step
        picture[..., top : top + CELL, :margin] = label(names[r], margin)
        for c, cell in enumerate(row):
            if cell is not None:
                left = margin + GAP + c * step
                sized = F.interpolate(cell[None, None], size=(CELL, CELL), mode="nearest-exact")[0]
                picture[..., top : top + CELL, left : left + CELL] = heatmap(sized)
    return picture


def label(text: str, width: int) -> Tensor:
    """White on grey: 3 CELL width."""
    import cv2

    canvas = np.full((CELL, width, 3), 31, np.uint8)
    cv2.putText(canvas, text, (6, CELL // 2 + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
    return torch.from_numpy(canvas).movedim(-1, 0) / 255
