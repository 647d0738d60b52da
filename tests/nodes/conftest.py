"""Makes the host importable in this process, so that the tests here may `import comfy` at the top."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from comfy_server import has_nvidia_gpu, make_base_directory

if host := os.environ.get("COMFYUI_PATH"):
    sys.path.insert(0, host)
    from comfy.cli_args import args

    base_directory = tempfile.TemporaryDirectory(prefix="comfyui-base-")
    make_base_directory(Path(base_directory.name), with_pack=False)
    # Both before any other host module is imported: they are read at import.
    args.base_directory = base_directory.name
    args.cpu = not has_nvidia_gpu()
else:
    collect_ignore_glob = ["test_*.py"]
