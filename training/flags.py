"""The command line of a recipe: one flag for each setting, and help made of the settings' own words."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .config import TrainConfig, full_name, names
from .errors import ConfigError
from .tables import kinds, nearest, toml

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a command line asks for."""

    recipe: Path
    overrides: Mapping[str, str]
    dry_run: bool
    diffusers: bool
    lint: bool


def shipped() -> list[str]:
    """Names of the recipes that come with the kit."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe_file(word: str) -> Path:
    """A recipe by its path, or by its name if it is a shipped one. Raises ConfigError for what is neither."""
    path, known = Path(word), shipped()
    if path.is_file():
        return path
    if word not in known:
        near = nearest(word, known)
        raise ConfigError(f"There is no recipe {word!r}: no such file, and none of {', '.join(known)}.{near}")
    return RECIPES / f"{word}.toml"


def short(name: str) -> str | None:
    """The setting's name without its table, if that is enough."""
    word = name.partition(".")[2]
    try:
        return word if full_name(word) == name else None
    except ConfigError:
        return None


def unit(kind: Any) -> str:
    """What stands for a value in the help."""
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(typing.get_args(kind)) + "}"
    return {int: "N", float: "X", bool: "true|false", str: "TEXT"}.get(kind, "TOML")


def parser() -> argparse.ArgumentParser:
    """Every setting as --table.key and, where that is enough, as --key."""
    made = argparse.ArgumentParser(
        prog="controlnet-kit train",
        usage="controlnet-kit train RECIPE [--dry-run] [--diffusers] [--key value ...]",
        description="Train a ControlNet by a recipe, a TOML file. Run the same command again to go on.",
        epilog=f"recipes that come with the kit: {', '.join(shipped())}",
        allow_abbrev=False,
    )
    made.add_argument("recipe", help="a TOML file, or the name of a recipe that comes with the kit")
    made.add_argument("--dry-run", action="store_true", help="print the settings and what the run will cost, and stop")
    made.add_argument("--diffusers", action="store_true", help="write the result as a diffusers folder too")
    made.add_argument("--no-lint", action="store_true", help="do not look for faults in the data first")
    for table, kind in kinds(TrainConfig).items():
        group = made.add_argument_group(f"[{table}]", kind.__doc__)
        for field in dataclasses.fields(kind):
            name = f"{table}.{field.name}"
            word = short(name)
            flags = [f"--{name}", *([f"--{word.replace('_', '-')}"] if word else [])]
            default = field.default_factory() if callable(field.default_factory) else field.default  # pyright: ignore[reportCallIssue]
            text = f"{field.metadata['help']} (default: {toml(default)})".replace("%", "%%")
            group.add_argument(*flags, dest=name, metavar=unit(kinds(kind)[field.name]), help=text)
    return made


def underscored(word: str) -> str:
    """A flag with its table, --target.keep-hint-encoder, as it is spelt in recipes; any other word as it is."""
    name, equals, value = word.partition("=")
    table = name.removeprefix("--").partition(".")[0]
    is_flag = name.startswith("--") and table in kinds(TrainConfig)
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if is_flag else word


def read(arguments: Sequence[str]) -> Wanted:
    """Words to a recipe and what overrides it; ConfigError with the nearest flag for an unknown one."""
    found, unknown = parser().parse_known_args([underscored(word) for word in arguments])
    for word in unknown:
        if word.startswith("--"):
            full_name(word[2:].partition("=")[0])
    if unknown:
        raise ConfigError(f"Nothing is known of {' '.join(unknown)!r}; settings are given as --key value.")
    given = {name: value for name in names() if (value := getattr(found, name)) is not None}
    return Wanted(
        recipe=recipe_file(found.recipe),
        overrides=given,
        dry_run=found.dry_run,
        diffusers=found.diffusers,
        lint=not found.no_lint,
    )
