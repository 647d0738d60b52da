"""Hints of faces that the host's own MediaPipe nodes find.

Shapes: H W pixels, 478 landmarks of a face.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..cn_core.errors import HintError
from ..cn_core.preprocess.learned.face_mesh import draw_contours
from ..cn_core.preprocess.learned.faces import Face
from .generated import category

LANDMARKS = 478


class PreprocessFaceLandmarks(io.ComfyNode):
    """Contours from FACE_LANDMARKS."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="PreprocessFaceLandmarks",
            display_name="Face Mesh from Landmarks",
            category=category("poses and faces"),
            description="Draws faces of Detect Face Landmarks (MediaPipe) as laion_face's ControlNets know them.",
            search_aliases=["mediapipe_face", "MediaPipe", "laion_face", "FACE_LANDMARKS"],
            inputs=[
                io.Custom("FACE_LANDMARKS").Input("face_landmarks", tooltip="From Detect Face Landmarks (MediaPipe)."),
            ],
            outputs=[io.Image.Output(display_name="hint", tooltip="One picture for each frame; black without faces.")],
        )

    @classmethod
    def execute(cls, face_landmarks: dict[str, Any]) -> io.NodeOutput:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Frames in, batch out."""
        height, width = face_landmarks["image_size"]
        frames = [draw_contours([face_of(one) for one in faces], height, width) for faces in face_landmarks["frames"]]
        if not frames:
            raise HintError("The face landmarks have no frames. Connect a picture to the node that finds them.")
        return io.NodeOutput(torch.from_numpy(np.stack(frames)).float() / 255)


def face_of(found: dict[str, Any]) -> Face:
    """One of the host's faces -> 478 3 in pixels. Raises HintError for another number of landmarks."""
    places = np.asarray(found["landmarks_xy"], np.float32)
    if places.shape != (LANDMARKS, 2):
        raise HintError(f"A face has landmarks of shape {places.shape}; ({LANDMARKS}, 2) with irises is expected.")
    return np.concatenate([places, np.zeros((LANDMARKS, 1), np.float32)], axis=1)
