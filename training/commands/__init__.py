"""The command `controlnet-kit`: a table of its subcommands, each in a module with `main(arguments) -> int`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ... import __version__
from ...cn_core.errors import ControlNetKitError

COMMANDS: Mapping[str, tuple[str, str]] = {
    "train": ("train a ControlNet by a recipe", ".train"),
    "lint": ("find what is wrong with a data set", ".lint"),
    "annotate": ("make hints for pictures", ".annotate"),
    "dataset": ("write the tutorial's data set", ".dataset"),
    "preprocessors": ("list, fetch and check the weights of learned preprocessors", ".preprocessors"),
}
"""Name -> (help, module that is imported when the command is run)."""
PACKAGES: Mapping[str, str] = {"PIL": "pillow", "cv2": "opencv-python-headless", "open_clip": "open_clip_torch"}
"""Modules that are called otherwise than the package which has them -> that package."""
ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code: 2 for what the user can put right, 130 when interrupted."""
    table = "\n".join(f"  {name:<15}{text}" for name, (text, _) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="controlnet-kit", epilog=f"commands:\n{table}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=COMMANDS, metavar="command")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see: controlnet-kit COMMAND --help")
    args = parser.parse_args(arguments)
    try:
        module = importlib.import_module(COMMANDS[args.command][1], __package__)
        return module.main(args.arguments) or 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", *sys.stdlib_module_names, __name__.partition(".")[0]):
            raise
        print(f"controlnet-kit {args.command}: {how_to_install(package)}", file=sys.stderr)
        return 2
    except (ControlNetKitError, OSError) as error:
        print(f"controlnet-kit {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"controlnet-kit {args.command}: interrupted", file=sys.stderr)
        return 130


def how_to_install(module: str) -> str:
    """What to do about a module that is missing."""
    return (
        f"the package {module} is not installed. Run: python -m pip install {PACKAGES.get(module, module)}; all that "
        f"training needs comes with: python -m pip install '{ROOT}[train]'"
    )
