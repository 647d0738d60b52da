"""M-LSD: straight lines, as they outline rooms and buildings (Gu et al. 2022, "Towards Light-weight and Real-time Line
Segment Detection").

Shapes: B batch, H W pixels, n the side of the network's square input, N = n / 2 cells, K lines.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor, nn

from ..frames import Frame, each_frame
from ..settings import Settings, between, one_of
from ..weights import Npm, Weights
from .detector import LearnedPreprocessor

logger = logging.getLogger(__name__)

Network = Literal["512", "320", "320 tiny"]


@dataclass(frozen=True, kw_only=True)
class MLSDSettings(Settings):
    """Which lines are drawn, and which of the networks looks for them."""

    score_threshold: float = field(
        default=0.1, metadata=between(0.01, 1.0, "How sure the network has to be of a line; lower draws more lines.")
    )
    distance_threshold: float = field(
        default=0.1,
        metadata=between(
            0.01, 20.0, "Lines shorter than this are left out; 1 is two pixels of the square that the network sees."
        ),
    )
    network: Network = field(
        default="512",
        metadata=one_of(
            get_args(Network),
            "Side in pixels of the square that it sees. 320 is several times as fast; tiny again, with fewer lines.",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class MLSDDetector:
    """The network, in onnxruntime on the CPU."""

    session: Any
    """onnxruntime.InferenceSession: 1 n n 4 (RGB in [0, 255], ones) -> scores 1 N N 1 (0 but on crests), offsets."""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """None."""
        return ()

    def lines(self, frame: Frame, settings: MLSDSettings) -> Frame:
        """H W 3 float32 in [0, 1] -> K 4 float32: x and y in pixels of both ends of each line."""
        import cv2

        height, width, _ = frame.shape
        inputs = self.session.get_inputs()[0]
        n = inputs.shape[1]
        picture = np.ones((1, n, n, 4), np.float32)
        picture[0, ..., :3] = cv2.resize(frame, (n, n), interpolation=cv2.INTER_AREA) * 255
        scores, offsets = self.session.run(["scores", "offsets"], {inputs.name: picture})
        y, x = np.nonzero(scores[0, ..., 0] > settings.score_threshold)
        ends = np.stack([x, y, x, y], axis=1) + offsets[0, y, x]  # in cells
        long = np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1]) > settings.distance_threshold
        return ends[long] * np.array([width, height, width, height], np.float32) * np.float32(2 / n)

    def __call__(self, images: Tensor, settings: MLSDSettings) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W, 1 on lines of one pixel and 0 elsewhere; empty maps are said in the log."""
        hints = each_frame(images, lambda frame: drawn(self.lines(frame, settings), frame.shape[:2]))
        if empty := int((hints.flatten(1).amax(dim=1) == 0).sum()):
            logger.warning(
                "M-LSD found no straight lines in %d of %d pictures. Lower score_threshold for fainter ones.",
                empty,
                len(hints),
            )
        return hints


def drawn(lines: Frame, size: tuple[int, ...]) -> Frame:
    """K 4 in pixels -> H W uint8, 255 on the lines."""
    import cv2

    canvas = np.zeros(size, np.uint8)
    for x0, y0, x1, y1 in np.rint(lines).astype(int).tolist():
        cv2.line(canvas, (x0, y0), (x1, y1), 255)
    return canvas


def load_mlsd(paths: tuple[Path, ...]) -> MLSDDetector:
    """One of the networks."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # else a warning for each constant that it does not need
    return MLSDDetector(session=onnxruntime.InferenceSession(paths[0], options, providers=["CPUExecutionProvider"]))


def weights(file: str, size: int, sha256: str) -> Weights:
    """One row of `WEIGHTS`."""
    origin = Npm(package="jp.keijiro.mlsd", version="1.0.0", member=f"package/ONNX/{file}")
    return Weights(file=file, size=size, sha256=sha256, licence="Apache-2.0", origin=origin)


WEIGHTS: dict[Network, Weights] = {
    "512": weights(
        "mlsd_512x512_large.onnx", 6169157, "c54856d88ff908a2feec230d6cab4714e88e99b692b095bb170042640e20f90d"
    ),
    "320": weights(
        "mlsd_320x320_large.onnx", 6168982, "f1d9ee1884ba1b31d7129ea9e6e799989ed214a88268691175ac923d14dd1781"
    ),
    "320 tiny": weights(
        "mlsd_320x320_tiny.onnx", 2514194, "8ed66620ee42e13b814f9d281f21873fe0ffca44261087188384dc4f365440f7"
    ),
}
"""The package's fourth, 512 tiny, is left out: its lines run far beyond their ends."""
ENTRIES = (
    LearnedPreprocessor(
        name="mlsd",
        node_id="PreprocessMLSD",
        title="M-LSD Lines",
        group="lines",
        description="Straight white lines on black, the hint of M-LSD ControlNets: rooms, buildings, streets.",
        settings=MLSDSettings,
        weights=tuple(WEIGHTS.values()),
        needs=lambda settings: (WEIGHTS[settings.network],),
        load=load_mlsd,
        packages=("onnxruntime",),
        aliases=("hough", "wireframe", "straight lines", "line segments"),
    ),
)
