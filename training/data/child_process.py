"""What a new process runs first, as a script: it makes the package known by its name, wherever it lies."""

import runpy
import sys
from pathlib import Path

if "controlnet_kit" not in sys.modules:
    root = Path(__file__).parents[2]
    runpy.run_path(str(root / "__main__.py"))["register"](root)
