"""Who looks at a run: pictures, the loss gap, alarms."""

from __future__ import annotations

from ..config import ValidationConfig
from .guard import Guard
from .probe import Probe
from .validate import Validation
from .watcher import Watcher


def watchers(config: ValidationConfig) -> tuple[Watcher, ...]:
    """Those of a run, as the settings have it; in each process."""
    validation = Validation()
    probe = Probe(validation if config.every else None)
    return (validation, probe, Guard(probe if config.probe_every else None))
