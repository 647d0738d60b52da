"""Nodes that find poses: hint, keypoints and report; and the host's face landmarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
import torch
from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.cn_core.preprocess.learned.face_mesh import CONTOURS, PUPILS
from controlnet_kit.cn_core.preprocess.learned.registry import LEARNED
from controlnet_kit.cn_core.preprocess.pose.draw import DrawSettings, draw
from controlnet_kit.cn_core.preprocess.pose.keypoints import Frame
from controlnet_kit.cn_core.preprocess.pose.read import read
from controlnet_kit.nodes.face_landmarks import PreprocessFaceLandmarks
from controlnet_kit.nodes.pose_detect import node_of, pose_nodes
from controlnet_kit.nodes.shelf import WEIGHTS, Shelf
from random_models import run
from skimage import data
from torch import Tensor

NODES = pose_nodes(Shelf())
FAST = {"model": "lite", "small": False}


@pytest.fixture(autouse=True)
def as_the_host_runs_nodes(weights_folder: Path) -> Iterator[None]:
    """With a folder of weights, and without gradients."""
    before = folder_paths.folder_names_and_paths.get(WEIGHTS)
    folder_paths.folder_names_and_paths[WEIGHTS] = ([str(weights_folder)], set())
    with torch.inference_mode():
        yield
    folder_paths.folder_names_and_paths.pop(WEIGHTS)
    if before:
        folder_paths.folder_names_and_paths[WEIGHTS] = before


@pytest.fixture(scope="module")
def frames() -> Tensor:
    """IMAGE of two frames of 256 256: an astronaut, and nobody."""
    astronaut = torch.from_numpy(data.astronaut()[::2, ::2]).float() / 255
    return torch.stack([astronaut, torch.zeros_like(astronaut)])


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A detector that keeps the number of pictures in each call."""

    inner: Any
    calls: list[int]
    modules: tuple[()] = ()

    def keypoints(self, images: Tensor, settings: Any) -> tuple[Frame, ...]:
        self.calls.append(len(images))
        return self.inner.keypoints(images, settings)


@dataclass
class Counter:
    """BlazePose's node on a shelf of its own, whose pictures are counted."""

    shelf: Shelf = field(default_factory=Shelf)
    calls: list[int] = field(default_factory=list)

    def __call__(self, image: Tensor, resolution: int = 0, **values: Any) -> tuple[Tensor, Any, str]:
        entry = LEARNED["openpose"]
        load: Any = lambda paths: Counted(inner=entry.load(paths), calls=self.calls)  # noqa: E731
        node = node_of(replace(entry, load=load), self.shelf)
        return run(node, image=image, resolution=resolution, **vars(entry.configured(FAST | values)))


@pytest.mark.parametrize("node", NODES.values(), ids=list(NODES))
def test_schemas(node: Any):
    schema = node.GET_SCHEMA()
    schema.validate()
    assert schema.node_id == node.__name__
    assert [one.io_type for one in schema.outputs] == ["IMAGE", "POSE_KEYPOINT", "STRING"]
    assert [schema.inputs[0].id, schema.inputs[-1].id] == ["image", "resolution"]
    assert all(one.tooltip for one in schema.inputs)


def test_hint_keypoints_and_report(frames: Tensor):
    hint, keypoints, report = Counter()(frames)
    assert hint.shape == frames.shape and hint[0].any() and not hint[1].any()
    reading = read(keypoints)
    assert [len(frame.people) for frame in reading.frames] == [1, 0]
    assert (reading.frames[0].width, reading.frames[0].height) == (256, 256)
    assert torch.equal(draw(reading.frames, DrawSettings()).movedim(1, -1), hint)
    assert "256x256" in report and "0 to 1" in report and report.endswith("switched on: 1.")


def test_the_hosts_node_draws_the_keypoints(frames: Tensor):
    _, keypoints, _ = Counter()(frames[:1])
    theirs = run(
        SDPoseDrawKeypoints,
        keypoints=keypoints,
        draw_body=True,
        draw_hands=True,
        draw_face=True,
        draw_feet=False,
        stick_width=4,
        face_point_size=3,
        score_threshold=0.3,
        draw_head=True,
    )[0]
    assert theirs[0].any() and theirs.shape[1:3] == (256, 256)


def test_the_hint_is_at_the_resolution(frames: Tensor):
    hint, keypoints, _ = Counter()(frames[:1], resolution=320)
    assert hint.shape == (1, 320, 320, 3) and keypoints[0]["canvas_width"] == 320


def test_only_new_pictures_and_settings_of_the_search_are_run_again(frames: Tensor):
    node = Counter()
    hint = node(frames)[0]
    assert sum(node.calls) == 2
    wide = node(frames, limb_width=9, body=True, threshold=0.5)[0]
    assert sum(node.calls) == 2 and not torch.equal(wide, hint)
    edited = frames.clone()
    edited[1] = 0.5
    assert torch.equal(node(edited)[0][0], hint[0])
    assert sum(node.calls) == 3
    node(frames, min_confidence=0.4)
    assert sum(node.calls) == 5


def test_broken_pictures_are_refused():
    with pytest.raises(HintError, match="NaN"):
        Counter()(torch.full((1, 8, 8, 3), float("nan")))


def landmarks(*counts: int) -> dict[str, Any]:
    """FACE_LANDMARKS with so many faces in each frame of 100 80."""
    places = np.random.default_rng(0).uniform(10, 70, (478, 2)).astype(np.float32)
    face = {"landmarks_xy": places, "landmarks_3d": np.zeros((478, 3), np.float32)}
    return {"frames": [[face] * count for count in counts], "image_size": (100, 80), "connection_sets": {}}


def test_the_hosts_face_landmarks_are_drawn():
    hint = run(PreprocessFaceLandmarks, face_landmarks=landmarks(1, 0))[0]
    assert hint.shape == (2, 100, 80, 3) and not hint[1].any()
    colors = {tuple(color) for color in (hint[0] * 255).round().int().reshape(-1, 3).tolist()}
    assert colors <= {(0, 0, 0), *(color for color, _ in CONTOURS), *(color for _, color in PUPILS)}
    assert len(colors) > 3


def test_other_face_landmarks_are_refused():
    with pytest.raises(HintError, match="no frames"):
        run(PreprocessFaceLandmarks, face_landmarks=landmarks())
    few = landmarks(1)
    few["frames"][0] = [{"landmarks_xy": np.zeros((68, 2))}]
    with pytest.raises(HintError, match=r"\(68, 2\).*\(478, 2\)"):
        run(PreprocessFaceLandmarks, face_landmarks=few)
