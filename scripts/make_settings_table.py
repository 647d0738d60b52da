"""Write the tables of recipes and of settings into docs/training.md, from the recipes and the settings themselves.

Run after either has changed: make settings
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from controlnet_kit.training import flags
from controlnet_kit.training.config import TrainConfig
from controlnet_kit.training.tables import kinds, toml

DOC = Path(__file__).resolve().parents[1] / "docs" / "training.md"


def recipes() -> Iterator[str]:
    """A row for each: its name, its comment's first sentence, and the figures that matter."""
    yield "| recipe | what for | base | px | batch | learning rate | steps |"
    yield "|---|---|---|---|---|---|---|"
    for name in flags.shipped():
        path = flags.recipe_file(name)
        config = TrainConfig.from_toml(path)
        figures = config.data.resolution, config.run.batch, f"{config.optimizer.learning_rate:g}", config.run.steps
        yield f"| `{name}` | {purpose(path)} | {config.base.path} | {' | '.join(map(str, figures))} |"


def purpose(path: Path) -> str:
    """The first sentence of a recipe's comment."""
    lines = path.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    return " ".join(line.removeprefix("# ") for line in lines).split(". ")[0].removesuffix(".")


def settings() -> Iterator[str]:
    """A row for each setting, with its short flag where there is one."""
    for table, kind in kinds(TrainConfig).items():
        yield from ("", f"**[{table}]** {kind.__doc__}", "", "| setting | default | meaning |", "|---|---|---|")
        for field in dataclasses.fields(kind):
            word = flags.short(f"{table}.{field.name}")
            flag = f" (`--{word.replace('_', '-')}`)" if word else ""
            values = flags.unit(kinds(kind)[field.name])
            choices = f"; one of {values[1:-1].replace(',', ', ')}" if values.startswith("{") else ""
            default = field.default_factory() if callable(field.default_factory) else field.default  # pyright: ignore[reportCallIssue]
            text = f"{field.metadata['help']}{choices}".replace("|", "\\|")
            yield f"| `{table}.{field.name}`{flag} | `{toml(default)}` | {text} |"
    yield ""


TABLES = {"recipes": recipes, "settings": settings}
"""Name in the marks around a table -> its lines."""


def current(text: str) -> str:
    """The document with its tables as they should be."""
    for name, lines in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"{DOC} has no marks {begin.strip()} and {end}.")
        text = f"{before}{begin}{chr(10).join(lines())}\n{end}{after}"
    return text


if __name__ == "__main__":
    DOC.write_text(current(DOC.read_text(encoding="utf-8")), encoding="utf-8")
