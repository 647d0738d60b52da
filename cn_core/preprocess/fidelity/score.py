"""One number for how well pictures follow their hints, by the kind of map that the preprocessor makes.

    fidelity("canny", hints, PREPROCESSORS["canny"](pictures)).value          hints: B 3 H W in [0, 1]

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...errors import HintError
from ..frames import Frame, weakest
from ..looks import best_palette
from ..map_kinds import MapKind, kind_of
from ..palettes import colours
from ..pose.keypoints import Frame as People
from . import depth, edges, normals, pictures, regions
from .pose import oks, pck, pose_scores

VISIBLE = 0.1
"""What is brighter than this in any channel is a part of a drawn pose."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How well pictures follow their hints."""

    name: str
    """Of the measure, as a trained file's metadata has it: "edge_f1"."""
    per_image: tuple[float, ...]
    details: Mapping[str, float]
    """Further measures by name, means over the pictures."""
    higher_is_better: bool = True

    @property
    def value(self) -> float:
        """Mean over the pictures."""
        return float(np.mean(self.per_image))

    @property
    def text(self) -> str:
        """ "edge_f1 0.812 (higher is better), edge_precision 0.790, ..."."""
        order = "higher" if self.higher_is_better else "lower"
        further = "".join(f", {name} {value:.3f}" for name, value in self.details.items())
        return f"{self.name} {self.value:.3f} ({order} is better){further}"


Measures = Mapping[str, float]
"""Of one picture, the first is the score."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What to do with a kind of map."""

    of_picture: Callable[[Frame, Frame, float], Measures]
    """(found, wanted: H W 3 float32 in [0, 1]; tolerance in pixels) -> the same names for all pictures."""
    higher_is_better: bool = True


def of_edges(found: Frame, wanted: Frame, tolerance_px: float) -> Measures:
    """Of lines, as `edges.agreement`; soft ones where they are at least half as bright as the hint's brightest."""
    found, wanted = found.max(axis=-1), wanted.max(axis=-1)
    level = edges.line_level(wanted)
    scores = edges.agreement(found > level, wanted > level, tolerance_px=tolerance_px)
    return {"edge_f1": scores.f1, "edge_precision": scores.precision, "edge_recall": scores.recall}


def of_depth(found: Frame, wanted: Frame, _: float) -> Measures:
    """As `depth` has it."""
    found, wanted = found.mean(axis=-1), wanted.mean(axis=-1)
    return {
        "depth_aligned_rmse": depth.aligned_rmse(found, wanted),
        "depth_scale_invariant_log": depth.scale_invariant_log_error(found, wanted),
    }


def of_normals(found: Frame, wanted: Frame, _: float) -> Measures:
    """As `normals.normal_errors`."""
    errors = normals.normal_errors(found, wanted)
    shares = {f"normal_below_{limit:g}_deg": share for limit, share in zip(normals.LIMITS, errors.shares, strict=True)}
    return {"normal_mean_deg": errors.mean, "normal_median_deg": errors.median, **shares}


def of_classes(found: Frame, wanted: Frame, _: float) -> Measures:
    """Segmentation: of its classes."""
    one, other = class_maps(found, wanted)
    return {"mask_miou": regions.mean_iou(one, other), "pixel_accuracy": float((one == other).mean())}


def class_maps(found: Frame, wanted: Frame) -> tuple[Frame, Frame]:
    """H W 3 in [0, 1] each -> H W classes of the data set that the hint's colours are from."""
    palette = colours(best_palette(wanted)[0])
    return regions.class_map(found, palette), regions.class_map(wanted, palette)


def of_masks(found: Frame, wanted: Frame, _: float) -> Measures:
    """Of what is white."""
    return {"mask_iou": regions.iou(weakest(found) > 0.5, weakest(wanted) > 0.5)}


def of_drawn_poses(found: Frame, wanted: Frame, _: float) -> Measures:
    """Of limbs as they are drawn; `pose_fidelity` says more where there are keypoints."""
    return {"pose_iou": regions.iou(found.max(axis=-1) > VISIBLE, wanted.max(axis=-1) > VISIBLE)}


MEASURES: Mapping[MapKind, Measure] = {
    "lines": Measure(of_picture=of_edges),
    "soft lines": Measure(of_picture=of_edges),
    "depth": Measure(of_picture=of_depth, higher_is_better=False),
    "normal": Measure(of_picture=of_normals, higher_is_better=False),
    "segmentation": Measure(of_picture=of_classes),
    "mask": Measure(of_picture=of_masks),
    "pose": Measure(of_picture=of_drawn_poses),
}
"""All other kinds are compared as pictures."""


def fidelity(preprocessor: str, hint: Tensor, redone: Tensor, *, tolerance_px: float = 2) -> Fidelity:
    """How well pictures follow their hints: B 3 H W in [0, 1] each, or one hint for all.

    hint: what the pictures were made with; redone: what the preprocessor of that name makes of the pictures.
    tolerance_px: how far lines may be off. Raises HintError for shapes that do not fit.
    """
    hint, redone = comparable(hint, redone)
    measure = MEASURES.get(kind_of(preprocessor))
    if measure is None:
        return of_pictures(hint, redone)
    found = [measure.of_picture(one, other, tolerance_px) for one, other in pairs(hint, redone)]
    return joined(found, higher_is_better=measure.higher_is_better)


def of_pictures(hint: Tensor, redone: Tensor) -> Fidelity:
    """SSIM, and PSNR in dB."""
    peak = float(pictures.psnr(redone, hint).mean())
    return Fidelity(name="ssim", per_image=tuple(pictures.ssim(redone, hint).tolist()), details={"psnr_db": peak})


def pose_fidelity(wanted: Sequence[People], found: Sequence[People]) -> Fidelity:
    """The same of keypoints, a frame for each picture or one `wanted` for all: OKS, and PCK within a tenth of a person.

    Raises HintError when the numbers of frames do not fit.
    """
    if len(wanted) not in (1, len(found)) or not found:
        raise HintError(f"There are {len(wanted)} poses for {len(found)} pictures: give one, or one for each.")
    within = pose_scores(found, wanted, pck)
    return Fidelity(
        name="pose_oks", per_image=pose_scores(found, wanted, oks), details={"pose_pck": float(np.mean(within))}
    )


def comparable(hint: Tensor, redone: Tensor) -> tuple[Tensor, Tensor]:
    """Both on the CPU, float32 in [0, 1], B 3 H W. Raises HintError for shapes that do not fit."""
    fits = hint.ndim == 4 and hint.shape[1:] == redone.shape[1:] and hint.shape[1] == 3 and hint.numel() > 0
    if not fits or hint.shape[0] not in (1, redone.shape[0]):
        raise HintError(
            f"The hint is {tuple(hint.shape)} and what it is compared with {tuple(redone.shape)} (batch, 3, height, "
            "width): they need one size, and one hint or one for each picture."
        )
    theirs, ours = (one.detach().float().cpu().clamp(0, 1) for one in (hint, redone))
    return theirs.expand_as(ours), ours


def pairs(hint: Tensor, redone: Tensor) -> Iterator[tuple[Frame, Frame]]:
    """(found, wanted) of each picture: H W 3 float32."""
    return ((one.movedim(0, -1).numpy(), other.movedim(0, -1).numpy()) for one, other in zip(redone, hint, strict=True))


def joined(found: Sequence[Measures], *, higher_is_better: bool) -> Fidelity:
    """The first measure of each picture, and the means of the others."""
    name, *further = found[0]
    return Fidelity(
        name=name,
        per_image=tuple(one[name] for one in found),
        details={other: float(np.mean([one[other] for one in found])) for other in further},
        higher_is_better=higher_is_better,
    )
