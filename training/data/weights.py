"""Where the weights of learned preprocessors are kept."""

from __future__ import annotations

import os
from pathlib import Path


def default_folder() -> Path:
    """ComfyUI's folder when the pack lies in its custom_nodes, else $CONTROLNET_KIT_WEIGHTS, else one right here."""
    pack = Path(__file__).absolute().parents[2]
    if pack.parent.name == "custom_nodes":
        return pack.parents[1] / "models" / "controlnet_preprocessors"
    return Path(os.environ.get("CONTROLNET_KIT_WEIGHTS") or "models/controlnet_preprocessors")
