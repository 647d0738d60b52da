"""The layers: what each folder may import, read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = {"torch", "safetensors", "numpy", "einops", *sys.stdlib_module_names}
LEARNED = {"cv2", "PIL", "h5py", "onnxruntime", "ai_edge_litert", "controlnet_aux", "timm", "transformers"}
"""Libraries that run the networks of learned preprocessors; imported when one is opened."""
TRAINING = CORE | {
    *("cv2", "PIL", "accelerate", "transformers", "diffusers", "datasets", "webdataset", "ray", "tqdm", "rich"),
    *("huggingface_hub", "open_clip", "torchao", "tomli", "filelock", "psutil"),
}
HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "node_helpers", "nodes", "server"}

Import = tuple[str, int]
"""The imported module and the line; our own modules are written from the root, "cn_core.image"."""


def imports(file: Path) -> Iterator[Import]:
    """Every import in a file, at any depth."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            folder = file.relative_to(ROOT).parts[: -node.level]
            names = [alias.name for alias in node.names] if node.module is None else [node.module]
            yield from ((".".join(("controlnet_kit", *folder, name)), node.lineno) for name in names)


def allowed(file: Path, module: str) -> bool:
    """Whether the file's folder may import the module."""
    room, top = file.relative_to(ROOT).parts[0], module.split(".")[0]
    if top == "controlnet_kit":
        below = {"cn_core": ("cn_core",), "training": ("cn_core", "training"), "nodes": ("cn_core", "nodes")}
        trainer = ("training",) if room == "nodes" and file.stem.startswith("train") else ()
        return module.split(".")[1] in (*below[room], *trainer, "__version__")
    if room == "cn_core":
        more = LEARNED if "learned" in file.parts else {"cv2"} if "preprocess" in file.parts else set[str]()
        return top in CORE | more
    return top in (TRAINING if room == "training" else TRAINING | HOST)


@pytest.mark.parametrize("room", ["cn_core", "nodes", "training"])
def test_imports_stay_within_the_layer(room: str):
    found = {
        file: [i for i in imports(file) if not allowed(file, i[0])] for file in sorted((ROOT / room).rglob("*.py"))
    }
    assert found
    assert {str(file.relative_to(ROOT)): bad for file, bad in found.items() if bad} == {}


@pytest.mark.parametrize("room", ["files", "modulation", "networks", "preprocess"])
def test_rooms_of_the_core_look_downwards(room: str):
    """Networks know nothing of files; modulation knows no other room, and preprocess of them only files."""
    others = {
        "files": ("preprocess",),
        "networks": ("files", "preprocess"),
        "modulation": ("files", "networks", "preprocess"),
        "preprocess": ("networks", "modulation"),
    }
    forbidden = others[room]
    found = [
        (str(file.relative_to(ROOT)), module, line)
        for file in sorted((ROOT / "cn_core" / room).rglob("*.py"))
        for module, line in imports(file)
        if module.startswith(tuple(f"controlnet_kit.cn_core.{other}" for other in forbidden))
    ]
    assert found == []


def test_only_the_entry_imports_commands():
    """The trainer's libraries know nothing of the command line."""
    found = [
        (str(file.relative_to(ROOT)), module, line)
        for file in sorted((ROOT / "training").rglob("*.py"))
        for module, line in imports(file)
        if module.startswith("controlnet_kit.training.commands") and file.parent.name != "commands"
    ]
    assert [name for name, _, _ in found] == ["training/__main__.py"]


def test_the_root_imports_nothing_at_import():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    assert [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)] == []
