"""What importing the pack costs the host, read from the log of a host started with `python -X importtime`."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from comfy_server import PACK, Installation, host_environment

LINE = re.compile(r"^import time:\s+(\d+) \|\s+(\d+) \|( +)(\S.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class ImportTimes:
    """The modules that were imported for the pack, ours and others."""

    modules: tuple[str, ...]
    """Names in order of import; ours as paths relative to the pack, ".nodes.apply"."""
    seconds: float


def parse(log: str) -> ImportTimes:
    """A module belongs to the pack if it is ours or was first imported by one of ours.

    Python writes a module's line after those of the modules that it imported, which are indented deeper.
    """
    rows = [(int(total), len(indent), name) for _, total, indent, name in LINE.findall(log)]
    modules, microseconds, enclosing = [], 0, None
    for total, depth, name in reversed(rows):  # so that a module comes before what it imported
        if enclosing is not None and depth <= enclosing:
            enclosing = None
        if enclosing is None and f"/{PACK}." in name:
            enclosing = depth
            microseconds += total
        if enclosing is not None:
            modules.append(name.rpartition(f"/{PACK}")[2])
    return ImportTimes(modules=tuple(reversed(modules)), seconds=microseconds / 1e6)


def measure(base: Path, installation: Installation) -> ImportTimes:
    """Start the host on `base`, import all packs, stop; RuntimeError with the log when it fails."""
    python, *arguments = installation.command(base, "--quick-test-for-ci")
    done = subprocess.run(
        [python, "-X", "importtime", *arguments],
        cwd=installation.comfyui,
        env=host_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    log = done.stdout + done.stderr
    if done.returncode or "IMPORT FAILED" in log:
        raise RuntimeError("\n".join(line for line in log.splitlines() if not line.startswith("import time:"))[-3000:])
    return parse(log)
