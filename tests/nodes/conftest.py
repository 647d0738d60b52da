"""Makes the host importable in this process, so that the tests here may `import comfy` at the top."""

from __future__ import annotations

import os

from comfy_in_process import make_importable
from comfy_server import Installation

if "COMFYUI_PATH" in os.environ:
    base_directory = make_importable(Installation.from_environment())
else:
    collect_ignore_glob = ["test_*.py"]
