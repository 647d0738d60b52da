"""The pack in ComfyUI's own page, in a real headless Chromium."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from comfy_client import ComfyClient
from comfy_server import ComfyServer

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"
TEMPLATES = sorted(EXAMPLES.glob("*.json"))
NODES = ("LoadControlNet", "ApplyControlNet", "PreprocessCanny", "LoadTinyBase")
PAGES = Path(__file__).resolve().parents[2] / "web" / "docs"
IN_CI = os.environ.get("CI") == "true"

if TYPE_CHECKING or IN_CI:
    import comfy_browser
    from playwright.sync_api import Page
else:
    comfy_browser = pytest.importorskip("comfy_browser", reason="playwright is not installed")

DROP = """([text, name]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name, { type: 'application/json' }));
  const canvas = document.querySelector('#graph-canvas');
  for (const type of ['dragenter', 'dragover', 'drop'])
    canvas.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""
"""Drag a file from the desktop onto the canvas and let go."""
OPEN_WORKFLOW = "() => window.app.extensionManager.workflow.activeWorkflow?.path"
"""Its name; a second drop of one file is another workflow, "canny (2)"."""


@pytest.fixture(scope="module")
def page(server: ComfyServer) -> Iterator[Page]:
    """ComfyUI, loaded; with the example pictures uploaded."""
    executable = comfy_browser.chromium()
    if executable is None:
        message = "no Chromium found; Debian: apt-get install chromium"
        pytest.fail(message) if IN_CI else pytest.skip(message)
    client = ComfyClient(server.url)
    for picture in (EXAMPLES / "inputs").glob("*.png"):
        client.upload(picture)
    client.upload(EXAMPLES / "inputs" / "photo.png", "example.png")  # every ComfyUI's input folder has one
    comfy_browser.write_settings(server.base)
    with comfy_browser.browser(executable) as running:
        yield comfy_browser.open_comfyui(running, server.url)


def drop(page: Page, file: Path) -> None:
    """Drop a workflow file onto the canvas and wait until it is the open workflow.

    The nodes alone are not enough: they are there a moment before the page is done with the workflow of before.
    """
    nodes = len(json.loads(file.read_text())["nodes"])
    before = page.evaluate(OPEN_WORKFLOW)
    page.evaluate("() => window.app.graph.clear()")
    page.evaluate(DROP, [file.read_text(), file.name])
    opened = f"before => window.app.graph.nodes.length === {nodes} && ({OPEN_WORKFLOW})() !== before"
    page.wait_for_function(opened, arg=before)


def test_nodes_are_registered(page: Page):
    registered = page.evaluate("names => names.filter(n => n in window.LiteGraph.registered_node_types)", list(NODES))
    assert registered == list(NODES)


@pytest.mark.timeout(700)  # one of them trains
@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_a_template_dropped_on_the_canvas_opens_and_runs(page: Page, server: ComfyServer, file: Path):
    drop(page, file)
    missing = page.evaluate(
        "() => window.app.graph.nodes.filter(n => n.has_errors || !(n.type in window.LiteGraph.registered_node_types))"
        ".map(n => n.type)"
    )
    assert missing == []
    # Not a click at its place, which may move while the page shows what the prompt before came to.
    with page.expect_response(lambda answer: answer.url.endswith("/prompt")) as answered:
        page.get_by_test_id("queue-button").first.dispatch_event("click")
    assert answered.value.ok, answered.value.text()
    record = finished(ComfyClient(server.url), answered.value.json()["prompt_id"])
    assert record["status"]["status_str"] == "success", record["status"]


def finished(client: ComfyClient, prompt_id: str, seconds: float = 600) -> dict:
    """The record of a prompt, once it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if record := client.history(prompt_id):
            return record
        time.sleep(0.3)
    pytest.fail(f"{prompt_id} did not end within {seconds:.0f} s; the queue has {client.get('/queue')}")


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_a_template_is_the_api_workflow(page: Page, file: Path):
    """Both files of a name hold the same graph; only the picture's name may differ."""
    drop(page, file)
    prompt = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    api = json.loads((EXAMPLES / "api" / file.name).read_text())
    assert prompt.keys() == api.keys()
    for node, expected in api.items():
        assert prompt[node]["class_type"] == expected["class_type"]
        if expected["class_type"] != "LoadImage":
            assert prompt[node]["inputs"] == expected["inputs"]


@pytest.mark.parametrize("node", NODES)
def test_the_help_page_is_shown(page: Page, node: str):
    page.evaluate(
        """type => {
          window.app.graph.clear();
          const node = window.LiteGraph.createNode(type);
          window.app.graph.add(node);
          window.app.canvas.selectNode(node);
        }""",
        node,
    )
    title = (PAGES / f"{node}.md").read_text().splitlines()[0].removeprefix("# ")
    # Not a click at its place: a mask that fades away over the page may still lie above it on a slow machine.
    page.get_by_test_id("info-button").first.dispatch_event("click")
    page.get_by_role("heading", name=title, exact=True).wait_for(timeout=10_000)


def test_every_template_has_a_thumbnail_and_an_api_file():
    names = {file.stem for file in TEMPLATES}
    assert names
    assert names == {file.stem for file in EXAMPLES.glob("*.jpg")}
    assert names == {file.stem for file in (EXAMPLES / "api").glob("*.json")}
