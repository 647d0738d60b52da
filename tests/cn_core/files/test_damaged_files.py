"""Damaged and hostile files: each is refused with its name, and none of it runs or fills the memory."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from controlnet_kit.cn_core.errors import CheckpointError
from controlnet_kit.cn_core.files.checkpoint import read, write


def safetensors_bytes(header: dict, data: bytes = b"") -> bytes:
    """A file by the format's definition: header length, header, data."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class Evil:
    """Unpickling this deletes a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return Path.unlink, (self.victim,)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"<!DOCTYPE html><title>404</title>" * 9,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 99_999_999) + b"{}",
        safetensors_bytes({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"short"),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, b"four"),
        safetensors_bytes({"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"four"),
        safetensors_bytes({"w": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, b"abc"),
        safetensors_bytes({"__metadata__": {"a": 1}}),
    ],
)
def test_safetensors(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^x\.safetensors is not a whole safetensors file"):
        read(path)


def test_truncated_safetensors(tmp_path, weights):
    path = tmp_path / "x.safetensors"
    write(path, weights, {})
    whole = path.read_bytes()
    for length in (4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"not downloaded to the end"):
            read(path)


def test_a_pickle_called_safetensors(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="of another format"):
        read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_with_flipped_or_missing_bytes(tmp_path, zipped):
    """Whatever torch's readers raise, a CheckpointError comes out; or the file was still readable."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.ones(3, 3), "b": torch.ones(4)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    random = torch.Generator().manual_seed(0)
    for _ in range(60):
        place, value, length = (int(torch.randint(n, (1,), generator=random)) for n in (len(whole), 256, len(whole)))
        for content in (whole[:place] + bytes([value]) + whole[place + 1 :], whole[:length]):
            path.write_bytes(content)
            try:
                read(path)
            except CheckpointError as error:
                assert str(error).startswith("x.pth ")


def test_pickled_objects_are_refused_and_not_run(tmp_path):
    path, victim = tmp_path / "x.pth", tmp_path / "victim"
    victim.touch()
    torch.save({"w": torch.ones(1), "evil": Evil(victim)}, path)
    with pytest.raises(CheckpointError, match=r"x\.pth holds Python objects.*convert it elsewhere.*save_file"):
        read(path)
    path.write_bytes(pickle.dumps({"evil": Evil(victim)}, protocol=2))
    with pytest.raises(CheckpointError, match=r"x\.pth "):
        read(path)
    assert victim.exists()


@pytest.mark.parametrize("content", [{}, {"step": 3}, [torch.ones(1)], torch.ones(1)])
def test_no_tensors(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt holds no tensors"):
        read(tmp_path / "x.pt")


def test_no_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors cannot be read: No such file"):
        read(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot be read: Is a directory"):
        read(tmp_path)
