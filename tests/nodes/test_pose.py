"""Pose nodes in the host's process: they exchange keypoints with the host's own nodes, and files with its folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
import torch
from comfy_extras.nodes_sdpose import CropByBBoxes, SDPoseDrawKeypoints, SDPoseFaceBBoxes
from controlnet_kit.cn_core.preprocess.pose.draw import DrawSettings, draw
from controlnet_kit.cn_core.preprocess.pose.keypoints import PoseError
from controlnet_kit.cn_core.preprocess.pose.read import read, write
from controlnet_kit.nodes.pose import (
    PoseKeypointsAdapt,
    PoseKeypointsFromJSON,
    PoseKeypointsToJSON,
)
from controlnet_kit.nodes.pose_edit import (
    PoseKeypointsDraw,
    PoseKeypointsPick,
    PoseKeypointsPlace,
    PoseKeypointsProportions,
    PoseKeypointsRegions,
    PoseKeypointsSmooth,
)
from controlnet_kit.nodes.pose_files import PoseKeypointsLoad, PoseKeypointsSave
from poses import HEIGHT, WIDTH, aux_dialect, core_dialect, frame, person
from random_models import run
from torch import Tensor

READING = {"coordinates": "auto", "padded": False, "width": 0, "height": 0}
NODES = [
    *(PoseKeypointsLoad, PoseKeypointsSave, PoseKeypointsFromJSON, PoseKeypointsToJSON, PoseKeypointsAdapt),
    *(PoseKeypointsDraw, PoseKeypointsPick, PoseKeypointsPlace, PoseKeypointsProportions, PoseKeypointsRegions),
    PoseKeypointsSmooth,
]


def defaults(node: Any) -> dict[str, Any]:
    """What the widgets of a node say at first."""
    return {one.id: one.default for one in node.GET_SCHEMA().inputs if getattr(one, "default", None) is not None}


def drawn_by_host(keypoints: Any, **options: Any) -> Tensor:
    """SDPoseDrawKeypoints."""
    switches = {"draw_body": True, "draw_hands": True, "draw_face": True, "draw_feet": False, "draw_head": True}
    sizes = {"stick_width": 4, "face_point_size": 3, "score_threshold": 0.3}
    return run(SDPoseDrawKeypoints, keypoints=keypoints, **(switches | sizes | options))[0]


def adapted(keypoints: Any, **options: Any) -> Any:
    return run(PoseKeypointsAdapt, keypoints=keypoints, **({**READING, "certain_from": 0.3} | options))[0]


def overlap(first: Tensor, second: Tensor) -> float:
    """Of what is not black: intersection over union."""
    first, second = first.any(dim=-1), second.any(dim=-1)
    return float((first & second).sum() / (first | second).sum())


def test_every_input_has_a_tooltip_and_ids_are_prefixed():
    for node in NODES:
        schema = node.GET_SCHEMA()
        assert schema.node_id.startswith("PoseKeypoints")
        assert all(one.tooltip for one in schema.inputs)


@pytest.mark.parametrize("source", [core_dialect(), aux_dialect(), aux_dialect((1 / WIDTH, 1 / HEIGHT))])
def test_the_host_draws_what_we_write_where_we_draw_it(source):
    """Without the adapter the second is a ValueError in the host's node, and the third a blob."""
    ours = run(PoseKeypointsDraw, keypoints=source, **(defaults(PoseKeypointsDraw) | {"face": False}))[0]
    host = drawn_by_host(adapted(source), draw_face=False)
    assert host.shape == ours.shape == (1, HEIGHT, WIDTH, 3)
    assert overlap(host, ours) > 0.9
    joints = read(source).frames[0].people[0].body[:14, :2].round().astype(int)
    for x, y in joints:
        if tuple(host[0, y, x].tolist()) != (0, 0, 1):  # a hand's point
            torch.testing.assert_close(host[0, y, x].float(), ours[0, y, x], atol=1e-3, rtol=0)


def test_auxs_reader_gets_certain_points_only():
    people = adapted(core_dialect())[0]["people"]
    assert {number for name in people[0] for number in people[0][name][2::3]} == {0.0, 1.0}


def test_the_adapter_takes_a_canvas_from_a_picture():
    (one,) = aux_dialect((1 / WIDTH, 1 / HEIGHT))
    del one["canvas_width"], one["canvas_height"]
    with pytest.raises(PoseError, match="width and height"):
        adapted([one])
    keypoints = adapted([one], image=torch.zeros(1, HEIGHT, WIDTH, 3))
    assert (keypoints[0]["canvas_width"], keypoints[0]["canvas_height"]) == (WIDTH, HEIGHT)
    assert overlap(drawn_by_host(keypoints), drawn_by_host(adapted(aux_dialect()))) > 0.95


def test_drawing_says_what_is_black():
    keypoints = write((frame(person()), frame()))
    pictures, report = run(PoseKeypointsDraw, keypoints=keypoints, **defaults(PoseKeypointsDraw))
    assert torch.equal(pictures.movedim(-1, 1), draw(read(keypoints).frames, DrawSettings()))
    assert report.startswith("Frames: 2, 400x480 pixels. People in each: 0 to 1.\nBlack,")
    assert report.endswith(": 1.")


def test_text_goes_in_and_comes_out():
    (text,) = run(PoseKeypointsToJSON, keypoints=core_dialect())
    keypoints, report = run(PoseKeypointsFromJSON, json=text, **READING)
    assert json.loads(text) == keypoints
    assert report == "Frames: 1, 400x480 pixels. People in each: 1."
    with pytest.raises(PoseError, match="end early"):
        run(PoseKeypointsFromJSON, json=text[:-9], **READING)


def test_files_are_saved_and_loaded():
    first, second = (run(PoseKeypointsSave, keypoints=core_dialect(), filename_prefix="poses/ab")[0] for _ in range(2))
    assert first != second
    assert Path(folder_paths.get_output_directory(), second).is_file()
    name = f"{second} [output]"
    assert PoseKeypointsLoad.validate_inputs(file=name) is True
    keypoints, _ = run(PoseKeypointsLoad, file=name, **READING)
    assert keypoints == write(read(core_dialect()).frames)
    assert len(PoseKeypointsLoad.fingerprint_inputs(file=name, **READING)) == 64


def test_a_file_of_the_input_folder_is_offered():
    path = Path(folder_paths.get_input_directory(), "kit_test_pose.json")
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(aux_dialect()).encode())
    try:
        assert path.name in PoseKeypointsLoad.define_schema().inputs[0].as_dict()["options"]
        assert run(PoseKeypointsLoad, file=path.name, **READING)[0] == write(read(aux_dialect()).frames)
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(PoseError, match="UTF-8"):
            run(PoseKeypointsLoad, file=path.name, **READING)
    finally:
        path.unlink()


@pytest.mark.parametrize("name", ["../secret.json", "/etc/hostname", "a/../../b.json", "nul\0.json", "no such.json"])
def test_files_elsewhere_are_neither_read_nor_written(name):
    assert PoseKeypointsLoad.validate_inputs(file=name) is not True
    with pytest.raises((ValueError, FileNotFoundError)):
        run(PoseKeypointsLoad, file=name, **READING)


@pytest.mark.parametrize("prefix", ["../out", "/tmp/out", "poses/../../out"])
def test_prefixes_stay_in_the_output_folder(prefix):
    with pytest.raises(Exception, match="outside the output folder"):
        run(PoseKeypointsSave, keypoints=core_dialect(), filename_prefix=prefix)


def test_placing():
    options = defaults(PoseKeypointsPlace) | {"right": 40.0}
    (keypoints,) = run(PoseKeypointsPlace, keypoints=write((frame(person()),) * 2), **options)
    assert [one["people"][0]["pose_keypoints_2d"][0] for one in keypoints] == [240, 240]


def test_proportions():
    options = defaults(PoseKeypointsProportions) | {"legs": 0.5}
    (keypoints,) = run(PoseKeypointsProportions, keypoints=core_dialect(), **options)
    body = np.array(keypoints[0]["people"][0]["pose_keypoints_2d"]).reshape(18, 3)
    np.testing.assert_allclose(body[10, :2], (175, 340), atol=1e-2)  # from the hip half way to the ankle


def test_smoothing():
    film = write(tuple(frame(person(right)) for right in (0, 10, 0, 10, 0)))
    (keypoints,) = run(PoseKeypointsSmooth, keypoints=film, **defaults(PoseKeypointsSmooth))
    assert np.ptp([one["people"][0]["pose_keypoints_2d"][0] for one in keypoints]) < 5


def test_picking():
    keypoints = write((frame(person(100), person(-100)),))
    options = defaults(PoseKeypointsPick) | {"order": "left to right"}
    (one,) = run(PoseKeypointsPick, keypoints=keypoints, **options)[0][0]["people"]
    assert one["pose_keypoints_2d"][0] == 100


def test_regions_crop_with_the_hosts_node():
    keypoints = write((frame(person()), frame(person(50))))
    masks, boxes = run(
        PoseKeypointsRegions, keypoints=keypoints, **(defaults(PoseKeypointsRegions) | {"region": "face"})
    )
    assert masks.shape == (2, HEIGHT, WIDTH)
    assert [len(one) for one in boxes] == [1, 1]
    image = run(PoseKeypointsDraw, keypoints=keypoints, **defaults(PoseKeypointsDraw))[0]
    options = {"output_width": 64, "output_height": 64, "padding": 0, "keep_aspect": "stretch"}
    assert run(CropByBBoxes, image=image, bboxes=boxes, **options)[0].shape == (2, 64, 64, 3)
    (host,) = run(SDPoseFaceBBoxes, keypoints=keypoints, scale=1.5, force_square=True)
    assert host[0][0]["x"] == pytest.approx(boxes[0][0]["x"], abs=30)
