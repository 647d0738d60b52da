"""Every node has a help page, and the page says what each input is."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import controlnet_kit
import pytest

PAGES = Path(controlnet_kit.__file__).parent / "web" / "docs"
FIRST_CELL = re.compile(r"^\| *([^|]+?) *\|", re.MULTILINE)


async def node_list() -> list:
    extension = await controlnet_kit.comfy_entrypoint()
    return await extension.get_node_list()


SCHEMAS = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in asyncio.run(node_list())}


def in_tables(page: str) -> set[str]:
    """What the first columns of a page's tables name: "vae (optional)" and "positive, negative" name inputs."""
    return {name.strip() for cell in FIRST_CELL.findall(page) for name in cell.removesuffix(" (optional)").split(",")}


def test_there_is_a_page_for_every_node_and_no_other():
    assert {page.stem for page in PAGES.glob("*.md")} == set(SCHEMAS)


@pytest.mark.parametrize("node", SCHEMAS)
def test_a_page_has_the_nodes_name_and_all_its_inputs(node: str):
    page = (PAGES / f"{node}.md").read_text(encoding="utf-8")
    assert page.splitlines()[0] == f"# {SCHEMAS[node].display_name}"
    assert {field.id for field in SCHEMAS[node].inputs} <= in_tables(page)


@pytest.mark.parametrize("node", SCHEMAS)
def test_a_page_has_an_example(node: str):
    assert "\n## Example\n" in (PAGES / f"{node}.md").read_text(encoding="utf-8")
