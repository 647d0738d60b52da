"""A MediaPipe Face Landmarker of the host's own class that sees one random face everywhere, in place of a download."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from comfy_in_process import make_importable
from comfy_server import Installation
from safetensors.torch import save_file

PARTS = ("face_oval", "left_eye", "right_eye", "left_eyebrow", "right_eyebrow", "lips", "irises", "nose")
BOX = (0, 0, 64, 64, -16, -12, 16, -12, 0, 0, 0, 16, -30, 0, 30, 0)
"""In 128ths of the picture from an anchor: centre, size, and six points, eyes first."""


def save_random_face_landmarker(path: Path, installation: Installation) -> None:
    """Write a checkpoint (6 MB) that the host's LoadMediaPipeFaceLandmarker takes."""
    if "comfy" not in sys.modules:
        make_importable(installation)
    from comfy_extras.mediapipe.face_landmarker import FaceLandmarker

    torch.manual_seed(1)
    weights = FaceLandmarker(detector_variant="short").state_dict()
    for name, value in weights.items():
        if name.startswith(("detector.cls", "detector.reg", "mesh.head_landmarks")):
            value.zero_()
        if name.startswith("detector.cls") and name.endswith("bias"):
            value.fill_(5)
        if name.startswith("detector.reg") and name.endswith("bias"):
            value.copy_(torch.tensor(BOX).repeat(len(value) // len(BOX)))
    weights["mesh.head_landmarks.bias"].uniform_(20, 170)
    found = {name.replace("detector.", "detector_short.", 1): value for name, value in weights.items()}
    found |= {f"topology.{part}": torch.tensor([[0, 1], [1, 2], [2, 0]], dtype=torch.int32) for part in PARTS}
    found["canonical_vertices"] = torch.randn(468, 3)
    found["procrustes_indices"] = torch.arange(33, dtype=torch.int32)
    found["procrustes_weights"] = torch.ones(33)
    save_file(found, path)
