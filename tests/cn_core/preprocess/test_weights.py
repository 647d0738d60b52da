"""Finding files of weights: whole and intact, or an error that says what is wrong and how to get them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from controlnet_kit.cn_core.errors import WeightsError
from controlnet_kit.cn_core.preprocess.weights import Npm, Weights, find

CONTENT = b"weights of a network"
ORIGIN = Npm(package="edges", version="1.0.0", member="package/edges.onnx")


def described(size: int = len(CONTENT), sha256: str | None = hashlib.sha256(CONTENT).hexdigest()) -> Weights:
    """A file of weights in a subfolder."""
    return Weights(file="edges/edges.onnx", size=size, sha256=sha256, licence="MIT", origin=ORIGIN)


def put(folder: Path, content: bytes = CONTENT) -> Path:
    """Write it where it is looked for."""
    path = folder / "edges" / "edges.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("weights", [described(), described(size=0), described(sha256=None)])
def test_an_intact_file_is_found_in_any_folder(tmp_path: Path, weights: Weights):
    second = put(tmp_path / "second")
    assert find(weights, (tmp_path / "first", tmp_path / "second"), "edges") == second
    first = put(tmp_path / "first")
    assert find(weights, (tmp_path / "first", tmp_path / "second"), "edges") == first


def test_a_missing_file_is_named_with_folders_and_command(tmp_path: Path):
    with pytest.raises(WeightsError) as caught:
        find(described(), (tmp_path / "a", tmp_path / "b"), "edges")
    for words in (
        "edges/edges.onnx",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "controlnet-kit preprocessors fetch edges",
    ):
        assert words in str(caught.value)


def test_a_wrong_size_is_named(tmp_path: Path):
    path = put(tmp_path, CONTENT[:-1])
    with pytest.raises(WeightsError, match=rf"{path}: it has 19 bytes, expected 20.*fetch edges"):
        find(described(), (tmp_path,), "edges")


def test_a_corrupt_file_is_named_with_both_hashes(tmp_path: Path):
    put(tmp_path, CONTENT[:-1] + b"!")
    found, expected = (hashlib.sha256(content).hexdigest() for content in (CONTENT[:-1] + b"!", CONTENT))
    with pytest.raises(WeightsError, match=f"its sha256 is {found}, expected {expected}"):
        find(described(), (tmp_path,), "edges")


@pytest.mark.parametrize("file", ["/etc/edges.onnx", "../edges.onnx", "a/../../b", "a\\b", ""])
def test_only_paths_below_the_folder_can_be_described(file: str):
    with pytest.raises(WeightsError, match="relative path"):
        Weights(file=file, size=0, sha256=None, licence="MIT", origin=ORIGIN)
