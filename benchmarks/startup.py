"""What the pack adds to the host's start-up: the imports that happen for it, timed by Python itself."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from comfy_server import Installation, make_base_directory
from import_times import measure
from results import write_section

RUNS = 3


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as folder:
        make_base_directory(Path(folder))
        installation = Installation.from_environment()
        measure(Path(folder), installation)  # byte code is written, files are in the page cache
        runs = [measure(Path(folder), installation) for _ in range(RUNS)]
    modules, seconds = runs[-1].modules, statistics.median(run.seconds for run in runs)
    foreign = [name for name in modules if not name.startswith(".")]
    write_section(
        "Start-up",
        [
            f"`python -X importtime` over ComfyUI's start with the pack, {RUNS} runs after one that warms up:",
            f"the pack's modules and what they import first take **{seconds:.3f} s** (median).",
            "",
            f"{len(modules) - len(foreign)} modules of ours; modules of others that the host had not imported already: "
            f"{', '.join(foreign) or 'none'}.",
        ],
    )


if __name__ == "__main__":
    main()
