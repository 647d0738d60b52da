"""Which part of the picture, and which of its frames, an evaluation is about.

The host tells a control neither: areas are found by the uuid of each prompt, through a wrapper around the model's
evaluation; frames stand in the transformer options of context windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.patcher_extension
from torch import Tensor

KEY = "controlnet_kit"
"""Of the wrapper, and in the transformer options."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A rectangle of the latent, in its positions."""

    top: int
    left: int
    height: int
    width: int
    whole: tuple[int, int]
    """Height and width of the whole latent."""

    def cut(self, pictures: Tensor) -> Tensor:
        """The same part of pictures ... h w that show the whole."""
        scale_y, scale_x = pictures.shape[-2] / self.whole[0], pictures.shape[-1] / self.whole[1]
        rows = slice(round(self.top * scale_y), max(round((self.top + self.height) * scale_y), 1))
        columns = slice(round(self.left * scale_x), max(round((self.left + self.width) * scale_x), 1))
        return pictures[..., rows, columns]


@dataclass(frozen=True, kw_only=True)
class Areas:
    """What the wrapper leaves in the transformer options."""

    by_uuid: Mapping[object, tuple[int, ...]]
    """Prompt -> (height, width, top, left), as the host resolved it; prompts for the whole picture are not in it."""
    whole: tuple[int, int]


def note_areas(
    executor: Callable[..., Any],
    model: comfy.model_base.BaseModel,
    conds: Sequence[Sequence[dict[str, Any]] | None],
    x: Tensor,
    timestep: Tensor,
    model_options: dict[str, Any],
) -> Any:
    """Around the host's calc_cond_batch: the same, with the areas of `conds` in the transformer options."""
    by_uuid = {
        entry["uuid"]: tuple(entry["area"])
        for conditions in conds
        if conditions
        for entry in conditions
        if "area" in entry
    }
    if not by_uuid:
        return executor(model, conds, x, timestep, model_options)
    areas = Areas(by_uuid=by_uuid, whole=(x.shape[-2], x.shape[-1]))
    options = {**model_options.get("transformer_options", {}), KEY: areas}
    return executor(model, conds, x, timestep, {**model_options, "transformer_options": options})


def with_areas(model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
    """A clone of the MODEL that tells controls about areas."""
    kind = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
    clone = model.clone()
    clone.remove_wrappers_with_key(kind, KEY)
    clone.add_wrapper_with_key(kind, KEY, note_areas)
    return clone


def regions(options: Mapping[str, Any], size: tuple[int, int]) -> tuple[Region | None, ...] | None:
    """The part that each chunk of an evaluation at this size is about; None when all are about the whole picture."""
    areas = options.get(KEY)
    if not isinstance(areas, Areas):
        return None
    found = tuple(region(areas.by_uuid.get(uuid), areas.whole, size) for uuid in options["uuids"])
    return found if any(found) else None


def region(area: tuple[int, ...] | None, whole: tuple[int, int], size: tuple[int, int]) -> Region | None:
    """The host's area as it evaluates it: at most up to the edge; of video, the last two dimensions."""
    if area is None or size == whole:
        return None
    half = len(area) // 2
    return Region(top=area[-2], left=area[-1], height=size[0], width=size[1], whole=whole) if half >= 2 else None


@dataclass(frozen=True, kw_only=True)
class FrameWindow:
    """A stretch of a video that is evaluated by itself."""

    frames: tuple[int, ...]
    """Which frames, in the order of the latents."""
    total: int
    """Frames of the whole video."""


def frame_window(options: Mapping[str, Any], batch: int) -> FrameWindow | None:
    """The frames that the `batch` latents of an evaluation are: the host's own context windows, or AnimateDiff's.

    None for windows along another dimension than the batch's: there every latent is a video of its own.
    """
    window, animate = options.get("context_window"), options.get("ad_params") or {}
    if window is None:
        indices, total = animate.get("sub_idxs"), animate.get("full_length")
    elif window.dim == 0:
        # The host may put the frame before the window first, and drops what comes of it ("causal window fix").
        anchor = getattr(window, "causal_anchor_index", None)
        indices, total = [*([] if anchor is None else [anchor]), *window.index_list], window.total_frames
    else:
        indices, total = None, None
    if indices is None or len(indices) != batch:
        return None
    return FrameWindow(frames=tuple(indices), total=total or max(indices) + 1)
