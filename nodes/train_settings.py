"""What `TrainControlNet` is asked for, as the trainer's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch

from ..cn_core.errors import ControlNetKitError
from ..training.config import RunConfig, TrainConfig
from ..training.errors import ConfigError
from ..training.tables import parse

SAVE_EVERY = 250
READINGS = 200
"""Of the loss, at least so many in a run that is long enough."""
NOT_HERE = {
    "base": "the base is what is connected",
    **dict.fromkeys(("data.path", "data.format", "data.captions", "data.captioner"), "pairs are what is connected"),
    **dict.fromkeys(("data.cache", "run.output", "run.resume"), "the node has its own folders"),
    "data.cached": "only ComfyUI moves its VAE and CLIP, and not during a run",
    "hardware.threads": "ComfyUI has its own",
    "target.unlock_decoder_at": "a CONTROL_NET brings no decoder; train it with `controlnet-kit train`",
}
"""Tables and settings that would do nothing -> why."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the node is asked for, besides pictures and base."""

    tables: dict[str, dict[str, Any]]
    """Settings that are the node's own inputs."""
    more: str
    """Others, as TOML."""
    name: str
    start_over: bool
    check_pairs: bool
    """Whether a new run looks for faults in them first."""


def check_settings(found: Mapping[str, Any]) -> None:
    """Raise ConfigError for what the node cannot do."""
    for table, values in found.items():
        for key in values if isinstance(values, dict) else ():
            for name in (table, f"{table}.{key}"):
                if name in NOT_HERE:
                    raise ConfigError(f"{table}.{key} is not for this node: {NOT_HERE[name]}. Take it out.")


def merged(tables: dict[str, dict[str, Any]], more: str) -> TrainConfig:
    """The node's settings and further ones; raises ConfigError for what is unknown, out of bounds or the node's."""
    found = parse(more, "The node's settings")
    check_settings(found)
    for table, values in tables.items():
        theirs = found.setdefault(table, {})
        if isinstance(theirs, dict):
            if taken := sorted(values.keys() & theirs.keys()):
                raise ConfigError(f"{table}.{taken[0]} is set by the node itself. Take it out of the settings.")
            theirs.update(values)
    return TrainConfig.from_tables(found)


def check_name(name: str) -> None:
    """Raise ControlNetKitError for a name, which anyone may have written, that is none for a folder."""
    if not name.strip(". ") or not name.isprintable() or set(name) & set('/\\:*?"<>|') or len(name) > 48:
        raise ControlNetKitError(f"save_name is {name!r:.80}; use 1 to 48 letters, digits, spaces, - and _.")


def precision(device: torch.device) -> str:
    """Of the computation, as the host would choose."""
    if comfy.model_management.should_use_bf16(device):
        return "bf16"
    return "fp16" if comfy.model_management.should_use_fp16(device) else "fp32"


def readings(steps: int) -> int:
    """run.log_every for a run of so many steps."""
    return max(1, min(RunConfig().log_every, steps // READINGS))
