"""Makes the host importable in this process, for tests and benchmarks that call it without a server."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from comfy_server import Installation, has_nvidia_gpu, make_base_directory


def make_importable(installation: Installation) -> tempfile.TemporaryDirectory[str]:
    """Afterwards `import comfy` works. Returns the host's base directory, which goes when the object does."""
    base = tempfile.TemporaryDirectory(prefix="comfyui-base-")
    make_base_directory(Path(base.name), with_pack=False)
    sys.path.insert(0, str(installation.comfyui))
    from comfy.cli_args import args

    # Both before any other host module is imported, which reads them at import.
    args.base_directory = base.name
    args.cpu = not has_nvidia_gpu()
    return base
