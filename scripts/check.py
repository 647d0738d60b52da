"""`make check`: format, lint and types of the whole checkout; all three run, and any of them can fail it."""

from __future__ import annotations

import os
import subprocess
import sys

CHECKS = {
    "format": ("ruff", "format", "--check", "--quiet", "."),
    "lint": ("ruff", "check", "--quiet", "."),
    "types": ("pyright", "--pythonpath", sys.executable),
}


def main() -> None:
    """Run the checks, one summary line each; the exit status is 1 when one of them fails."""
    # pyright reads the host's types from the folder that the host is imported from.
    os.environ["PYTHONPATH"] = os.pathsep.join([os.environ["PYTHONPATH"], os.environ["COMFYUI_PATH"]])
    failed = [name for name, command in CHECKS.items() if subprocess.run([sys.executable, "-m", *command]).returncode]
    print(f"check: {', '.join(failed) + ' failed' if failed else 'format, lint and types pass'}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
