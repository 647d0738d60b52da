"""pyproject.toml says what the tree is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import controlnet_kit
import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CODE = ("cn_core", "nodes", "training")


def test_every_package_is_listed():
    """A package that is missing from the list would be missing from the wheel without an error."""
    folders = [path.parent.relative_to(ROOT) for room in CODE for path in (ROOT / room).rglob("__init__.py")]
    expected = {"controlnet_kit", *(".".join(("controlnet_kit", *folder.parts)) for folder in folders)}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected


def test_every_folder_with_code_is_a_package():
    """Without an __init__.py the host would import a folder as a namespace package and setuptools would skip it."""
    folders = {path.parent for room in CODE for path in (ROOT / room).rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_version_is_the_same_in_both_places():
    assert PROJECT["project"]["version"] == controlnet_kit.__version__


@pytest.mark.parametrize("module", ["controlnet_kit", "controlnet_kit.cn_core", "controlnet_kit.training"])
def test_import_brings_nothing_along(module: str, tmp_path: Path):
    """In a clean interpreter: the root imports nothing of the host and the packages nothing heavy."""
    (tmp_path / "controlnet_kit").symlink_to(ROOT)
    program = (
        f"import sys; before = set(sys.modules); import {module}; "
        "print([n for n in set(sys.modules) - before if n.split('.')[0] in ('torch', 'cv2', 'diffusers', 'comfy')])"
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
