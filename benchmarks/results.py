"""RESULTS.md: one section for each benchmark, rewritten by it with the machine that it ran on."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = "# Results\n\nWritten by `make bench`. Each section names the machine that it was taken on.\n"


def machine() -> str:
    """Processor or GPU, cores, torch and date, in one line."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else (models or [platform.processor()])[0]
    threads, today = torch.get_num_threads(), datetime.datetime.now(tz=datetime.timezone.utc).date()
    return f"{device}, {os.cpu_count()} cores ({threads} torch threads), torch {torch.__version__}, {today}"


def write_section(title: str, lines: Sequence[str]) -> None:
    """Print the lines and put them under `## title`; a section of that title is replaced where it stands."""
    section = "\n".join((f"## {title}", "", f"{machine()}.", "", *lines)) + "\n"
    print(section)
    text = RESULTS.read_text() if RESULTS.exists() else TITLE
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    kept = [old for old in sections if old.splitlines()[0] != f"## {title}"]
    place = next((i for i, old in enumerate(sections) if old.splitlines()[0] == f"## {title}"), len(kept))
    blocks = [head, *kept[:place], section, *kept[place:]]
    RESULTS.write_text("\n".join(block.rstrip("\n") + "\n" for block in blocks))
