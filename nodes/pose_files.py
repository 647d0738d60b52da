"""Pose nodes for JSON files in the host's input and output folders."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..cn_core.preprocess.pose.keypoints import PoseError
from ..cn_core.preprocess.pose.read import MAX_TEXT, read, write
from .pose import keypoints_of, pose_input, pose_output, reading_inputs, report_output, schema


class PoseKeypointsLoad(io.ComfyNode):
    """A JSON file of the input folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        names = sorted(name for name in os.listdir(folder_paths.get_input_directory()) if name.endswith(".json"))
        file = io.Combo.Input("file", options=names, tooltip="A .json file in the input folder, of any pose detector.")
        return schema(
            "PoseKeypointsLoad",
            "Load Pose Keypoints (Kit)",
            "Reads poses from a JSON file: OpenPose's, ComfyUI's, comfyui_controlnet_aux's or DWPose's.",
            [file, *reading_inputs()],
            [pose_output(), report_output()],
        )

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool | str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Whether the file is there, before anything runs."""
        there = file is None or folder_paths.exists_annotated_filepath(file)
        return there or f"There is no file {file!r:.100} in the input folder. Put it there and refresh the page."

    @classmethod
    def fingerprint_inputs(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, file: str, **_: Any
    ) -> str:
        """Another one when the file has changed."""
        return hashlib.sha256(json_file(file)).hexdigest()

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, file: str, coordinates: str, padded: bool, width: int, height: int
    ) -> io.NodeOutput:
        """Read it."""
        try:
            text = json_file(file).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise PoseError(f"{file!r:.100} is no text in UTF-8, so it is no JSON. Choose another file.") from error
        return keypoints_of(text, coordinates, padded, width, height)


def json_file(name: str) -> bytes:
    """What is in a file of the input folder. Raises PoseError for one that is too large."""
    path = Path(folder_paths.get_annotated_filepath(name))
    if path.stat().st_size > MAX_TEXT:
        raise PoseError(f"{name!r:.100} has {path.stat().st_size} bytes; pose files of up to {MAX_TEXT} are read.")
    return path.read_bytes()


class PoseKeypointsSave(io.ComfyNode):
    """A JSON file in the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        prefix = io.String.Input(
            "filename_prefix", default="poses/pose", tooltip="Name below the output folder; a number is added."
        )
        return schema(
            "PoseKeypointsSave",
            "Save Pose Keypoints (Kit)",
            "Writes poses as OpenPose JSON into the output folder.",
            [pose_input(), prefix],
            [io.String.Output(display_name="path")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, keypoints: object, filename_prefix: str
    ) -> io.NodeOutput:
        """Write it; the host refuses prefixes that lead out of its folder."""
        text = json.dumps(write(read(keypoints).frames))
        output = folder_paths.get_output_directory()
        folder, name, counter, _, _ = folder_paths.get_save_image_path(filename_prefix, output)
        path = Path(folder, f"{name}_{counter:05}_.json")
        path.write_text(text, encoding="utf-8")
        return io.NodeOutput(os.path.relpath(path, output))
