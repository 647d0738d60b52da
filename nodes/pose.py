"""Pose nodes that read and write: POSE_KEYPOINT of any dialect, and JSON text; and what all pose nodes share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..cn_core.preprocess.pose.keypoints import MAX_SIDE, Frame
from ..cn_core.preprocess.pose.read import Space, read, write

CATEGORY = "ControlNet Kit/poses"
Pose = io.Custom("POSE_KEYPOINT")
SPACES: dict[str, Space] = {"auto": "auto", "pixels": "pixels", "0 to 1": "shares"}
"""What the nodes show -> `read.Space`."""
ALIASES = ["openpose", "dwpose", "sdpose", "keypoints", "skeleton"]


def schema(node_id: str, title: str, description: str, inputs: Sequence[io.Input], outputs: Sequence[io.Output]) -> Any:
    """What all pose nodes have in common."""
    return io.Schema(
        node_id=node_id,
        display_name=title,
        category=CATEGORY,
        description=description,
        search_aliases=ALIASES,
        inputs=[*inputs],
        outputs=[*outputs],
        is_output_node=node_id == "PoseKeypointsSave",
    )


def pose_input() -> io.Input:
    """Of any dialect."""
    return Pose.Input("keypoints", tooltip="From SDPose, OpenPose or DWPose nodes, or from any node here.")


def pose_output() -> io.Output:
    """Keypoints in pixels, of one canvas, all parts at full length."""
    return Pose.Output(display_name="keypoints")


def report_output() -> io.Output:
    """What was found and done."""
    return io.String.Output(display_name="report")


def side_input(name: str, tooltip: str) -> io.Input:
    """Pixels, 0 for what the keypoints say."""
    return io.Int.Input(name, default=0, min=0, max=MAX_SIDE, tooltip=tooltip)


def reading_inputs() -> list[io.Input]:
    """How keypoints are to be understood."""
    return [
        io.Combo.Input(
            "coordinates",
            options=list(SPACES),
            default="auto",
            tooltip="What the keypoints are in; auto tells pixels from shares of the canvas by their size.",
        ),
        io.Boolean.Input(
            "padded",
            default=False,
            tooltip="On for comfyui_controlnet_aux's OpenPose, whose shares are of sides rounded up to 64 pixels.",
        ),
        side_input("width", "Of the canvas, where the keypoints do not tell it; 0: find it out."),
        side_input("height", "Of the canvas, where the keypoints do not tell it; 0: find it out."),
    ]


def report(frames: tuple[Frame, ...], notes: Sequence[str]) -> str:
    """What was read, a line each."""
    people = [len(frame.people) for frame in frames]
    counts = str(people[0]) if len(set(people)) == 1 else f"{min(people)} to {max(people)}"
    first = f"Frames: {len(frames)}, {frames[0].width}x{frames[0].height} pixels. People in each: {counts}."
    return "\n".join([first, *notes])


def keypoints_of(
    source: object, coordinates: str, padded: bool, width: int, height: int, certain_from: float = 0.0
) -> io.NodeOutput:
    """Any dialect -> the common one and a report."""
    reading = read(source, space=SPACES[coordinates], padded=padded, width=width, height=height)
    return io.NodeOutput(write(reading.frames, certain_from=certain_from), report(reading.frames, reading.notes))


class PoseKeypointsFromJSON(io.ComfyNode):
    """Text to keypoints."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        text = io.String.Input("json", multiline=True, tooltip="A frame, a list of frames, or a person.")
        return schema(
            "PoseKeypointsFromJSON",
            "Pose Keypoints from JSON",
            "Reads poses from a text, which may be edited by hand.",
            [text, *reading_inputs()],
            [pose_output(), report_output()],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, json: str, coordinates: str, padded: bool, width: int, height: int
    ) -> io.NodeOutput:
        """Read it."""
        return keypoints_of(json, coordinates, padded, width, height)


class PoseKeypointsToJSON(io.ComfyNode):
    """Keypoints to text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "PoseKeypointsToJSON",
            "Pose Keypoints to JSON",
            "Writes poses as a text, to look at or to edit.",
            [pose_input()],
            [io.String.Output(display_name="json")],
        )

    @classmethod
    def execute(cls, keypoints: object) -> io.NodeOutput:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Write it."""
        return io.NodeOutput(json.dumps(write(read(keypoints).frames)))


class PoseKeypointsAdapt(io.ComfyNode):
    """Any dialect to the common one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        image = io.Image.Input("image", optional=True, tooltip="Its size is the canvas, where width and height are 0.")
        certain = io.Float.Input(
            "certain_from",
            default=0.3,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Confidence from here on becomes 1, below it 0, as comfyui_controlnet_aux needs it; 0 keeps it.",
        )
        return schema(
            "PoseKeypointsAdapt",
            "Pose Keypoints Adapter",
            "Makes poses of one node pack fit the nodes of another: pixels, one canvas, all parts, confidence 0 or 1.",
            [pose_input(), *reading_inputs(), certain, image],
            [pose_output(), report_output()],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, keypoints: object, image: Tensor | None = None, **reading: Any
    ) -> io.NodeOutput:
        """Read and write."""
        if image is not None and not (reading["width"] and reading["height"]):
            reading |= {"width": image.shape[2], "height": image.shape[1]}
        return keypoints_of(keypoints, **reading)
