"""`python -m controlnet_kit`; also `python custom_nodes/comfyui-controlnet-kit`, with nothing installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path


def register(folder: Path) -> None:
    """Make `import controlnet_kit` mean this folder, which Python has put first on its path as a folder of modules."""
    sys.path[:] = [entry for entry in sys.path if Path(entry).absolute() != folder]
    spec = importlib.util.spec_from_file_location(
        "controlnet_kit", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec and spec.loader
    sys.modules["controlnet_kit"] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


if __name__ == "__main__":
    if not __package__:
        register(Path(__file__).absolute().parent)
    sys.exit(importlib.import_module("controlnet_kit.training.commands").main())
