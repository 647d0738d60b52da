"""The table of preprocessors with networks, and what opening one needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from controlnet_kit.cn_core.errors import ControlNetKitError, WeightsError
from controlnet_kit.cn_core.preprocess.learned.detector import LearnedPreprocessor
from controlnet_kit.cn_core.preprocess.learned.mlsd import MLSDSettings
from controlnet_kit.cn_core.preprocess.learned.registry import ALL, LEARNED
from controlnet_kit.cn_core.preprocess.registry import PREPROCESSORS
from controlnet_kit.training.commands import preprocessors

every = pytest.mark.parametrize("entry", ALL, ids=[entry.name for entry in ALL])


def test_names_and_nodes_are_the_entrys_own():
    entries = [*ALL, *PREPROCESSORS.values()]
    assert len(LEARNED) == len(ALL)
    assert len({entry.name for entry in entries}) == len({entry.node_id for entry in entries}) == len(entries)


@every
def test_an_entry_says_all_that_a_form_and_a_fetch_need(entry: LearnedPreprocessor):
    assert entry.node_id.startswith("Preprocess") and entry.title and entry.description.endswith(".")
    assert entry.configured({}) == entry.settings()
    assert entry.weights and set(entry.files()) <= set(entry.weights)
    assert all(file.licence for file in entry.weights)


def test_settings_choose_the_file():
    assert [file.file for file in LEARNED["mlsd"].files()] == ["mlsd_512x512_large.onnx"]
    chosen = LEARNED["mlsd"].files(MLSDSettings(network="320 tiny"))
    assert [file.file for file in chosen] == ["mlsd_320x320_tiny.onnx"]


def test_a_missing_package_is_named_with_the_command(tmp_path: Path):
    entry = replace(LEARNED["hed"], packages=("h5py", "no-such-package"))
    with pytest.raises(
        ControlNetKitError, match=r"not installed: no-such-package\. Run: python -m pip install no-such"
    ):
        entry.open([tmp_path])


def test_a_missing_file_is_named_with_the_command(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"hed_bsds500\.weights\.h5, .*fetch hed"):
        LEARNED["hed"].open([tmp_path])


@pytest.mark.parametrize(
    ("name", "values", "command"),
    [
        ("depth", {"model": "v1 base"}, "fetch depth --only depth-anything-base-hf"),
        ("mlsd", {"network": "320 tiny"}, "fetch mlsd --only mlsd_320x320_tiny.onnx"),
        ("openpose", {"hands": False, "face": False}, "--only mediapipe/pose_detection.tflite mediapipe/pose_landmark"),
        ("dwpose", {}, "fetch dwpose"),
    ],
)
def test_the_command_gets_no_more_than_the_settings_need(name: str, values: dict, command: str, tmp_path: Path):
    entry = LEARNED[name]
    with pytest.raises(WeightsError) as caught:
        entry.paths([tmp_path], entry.configured(values))
    assert command in str(caught.value) and ("--only" in command) == ("--only" in str(caught.value))
    words = str(caught.value).partition("fetch ")[2].split()
    fetched = preprocessors.files(LEARNED, words[:1], words[2:])
    assert set(fetched) == set(entry.files(entry.configured(values)))


def test_an_unknown_setting_is_refused():
    with pytest.raises(ControlNetKitError, match="hed has no setting sharp"):
        LEARNED["hed"].configured({"sharp": True})
