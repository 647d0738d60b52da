"""docs/training.md: its tables are current, and the commands and settings in it exist."""

from __future__ import annotations

import re

from controlnet_kit.training import flags
from controlnet_kit.training.commands import COMMANDS
from controlnet_kit.training.config import full_name
from make_settings_table import DOC, current

TEXT = DOC.read_text(encoding="utf-8")


def test_the_tables_are_current() -> None:
    assert current(TEXT) == TEXT, "run: make settings"


def test_every_command_and_every_recipe_is_there() -> None:
    assert set(re.findall(r"controlnet-kit (\w+)", TEXT)) == set(COMMANDS)
    assert set(re.findall(r"(?:controlnet-kit train|controlnet_kit\.training) ([a-z][\w-]+)", TEXT)) <= set(
        flags.shipped()
    )


def test_every_setting_and_flag_that_is_named_exists() -> None:
    known = {option for action in flags.parser()._actions for option in action.option_strings}
    for line in re.findall(r"^    .*(?:controlnet-kit train|controlnet_kit\.training) .*$", TEXT, re.MULTILINE):
        assert set(re.findall(r" (--[a-z][\w.-]+)", line.partition("train")[2])) <= known, line
    tables = "base|data|target|objective|optimizer|hardware|validation|run"
    for name in re.findall(rf"`((?:{tables})\.(?!json)[a-z_0-9]+)", TEXT):
        assert full_name(name) == name
