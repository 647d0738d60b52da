"""Pose nodes that draw and change: hints, places, proportions, films, people, regions."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..cn_core.preprocess.pose.draw import DrawSettings, draw, empty
from ..cn_core.preprocess.pose.edit import PickSettings, PlaceSettings, Proportions, picked, proportioned, relocated
from ..cn_core.preprocess.pose.keypoints import Frame, each_person, on_one_canvas
from ..cn_core.preprocess.pose.read import read, write
from ..cn_core.preprocess.pose.regions import RegionSettings, boxes, masks
from ..cn_core.preprocess.pose.smooth import SmoothSettings, smoothed
from .boundary import to_image
from .forms import widgets
from .pose import pose_input, pose_output, report, report_output, schema, side_input


class PoseKeypointsDraw(io.ComfyNode):
    """Keypoints to hints."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        sizes = [
            side_input("width", "Of the hint in pixels; 0: of the first frame's canvas."),
            side_input("height", "Of the hint in pixels; 0: of the first frame's canvas."),
        ]
        return schema(
            "PoseKeypointsDraw",
            "Draw Pose Keypoints (Kit)",
            "Draws people as OpenPose ControlNets know them; one picture for each frame.",
            [pose_input(), *widgets(DrawSettings), *sizes],
            [io.Image.Output(display_name="hint"), report_output()],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, keypoints: object, width: int, height: int, **settings: Any
    ) -> io.NodeOutput:
        """Frames in, batch out; the report says which are black."""
        reading = read(keypoints)
        pictures = draw(reading.frames, DrawSettings(**settings), width=width, height=height)
        black = ", ".join(map(str, empty(pictures)))
        notes = (
            [f"Black, for nothing in them is certain enough, on the canvas and switched on: {black}."] if black else []
        )
        return io.NodeOutput(to_image(pictures), report(reading.frames, [*reading.notes, *notes]))


class PoseKeypointsPlace(io.ComfyNode):
    """Scale, turn, move, flip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "PoseKeypointsPlace",
            "Place Poses",
            "Scales, turns, moves and mirrors people on their canvas, in this order.",
            [pose_input(), *widgets(PlaceSettings)],
            [pose_output()],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, keypoints: object, **settings: Any
    ) -> io.NodeOutput:
        """All frames alike."""
        place = PlaceSettings(**settings)
        return io.NodeOutput(write(tuple(relocated(frame, place) for frame in frames_of(keypoints))))


class PoseKeypointsProportions(io.ComfyNode):
    """Lengths of limbs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "PoseKeypointsProportions",
            "Pose Proportions",
            "Makes parts of bodies longer or shorter, at the same angles: a child's pose for a giant.",
            [pose_input(), *widgets(Proportions)],
            [pose_output()],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, keypoints: object, **settings: Any
    ) -> io.NodeOutput:
        """All people alike."""
        proportions = Proportions(**settings)
        frames = frames_of(keypoints)
        return io.NodeOutput(write(tuple(each_person(f, lambda one: proportioned(one, proportions)) for f in frames)))


class PoseKeypointsSmooth(io.ComfyNode):
    """A film without jitter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "PoseKeypointsSmooth",
            "Smooth Poses",
            "Follows each person through the frames of a film, fills gaps and takes out jitter.",
            [pose_input(), *widgets(SmoothSettings)],
            [pose_output()],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, keypoints: object, **settings: Any
    ) -> io.NodeOutput:
        """All frames together."""
        return io.NodeOutput(write(smoothed(frames_of(keypoints), SmoothSettings(**settings))))


class PoseKeypointsPick(io.ComfyNode):
    """Some of the people."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "PoseKeypointsPick",
            "Pick Pose People",
            "Keeps some of the people in each frame: the largest, the leftmost, the second from the top.",
            [pose_input(), *widgets(PickSettings)],
            [pose_output()],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, keypoints: object, **settings: Any
    ) -> io.NodeOutput:
        """Each frame on its own."""
        pick = PickSettings(**settings)
        return io.NodeOutput(write(tuple(picked(frame, pick) for frame in frames_of(keypoints))))


class PoseKeypointsRegions(io.ComfyNode):
    """Boxes and masks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "PoseKeypointsRegions",
            "Pose to Boxes and Masks",
            "Where people, their faces or hands are: for cropping, detailing, and masks of where a ControlNet acts.",
            [pose_input(), *widgets(RegionSettings)],
            [io.Mask.Output(display_name="masks"), io.BoundingBox.Output(display_name="boxes")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, keypoints: object, **settings: Any
    ) -> io.NodeOutput:
        """A mask and a list of boxes for each frame."""
        regions, frames = RegionSettings(**settings), frames_of(keypoints)
        return io.NodeOutput(masks(frames, regions), [boxes(frame, regions) for frame in frames])


def frames_of(keypoints: object) -> tuple[Frame, ...]:
    """Keypoints of any dialect -> frames of one canvas."""
    return on_one_canvas(read(keypoints).frames)
