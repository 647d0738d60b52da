"""ComfyUI's own page in a real headless Chromium, for the browser tests and for making the templates."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Route, sync_playwright

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.RightSidePanel.IsOpen": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,
}
"""So that no dialog covers the canvas and text is drawn at any zoom."""
READY = "!!window.app?.extensionManager && !!window.app.graph && '{node}' in window.LiteGraph.registered_node_types"
LOAD_TIMEOUT_MS = 120_000


def write_settings(base: Path) -> None:
    """Put our presets into a server's base directory, before a page is opened."""
    (base / "user" / "default" / "comfy.settings.json").write_text(json.dumps(SETTINGS))


def chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


@contextlib.contextmanager
def browser(executable: str) -> Generator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=list(CHROMIUM_OPTIONS))
        yield running
        running.close()


def stay_local(route: Route) -> None:
    """Let a request through only if it goes to this machine."""
    address = urlsplit(route.request.url)
    if address.scheme in ("data", "blob") or address.hostname == "127.0.0.1":
        route.continue_()
    else:
        route.abort()


def open_comfyui(running: Browser, url: str) -> Page:
    """A page with ComfyUI's frontend ready and the default graph out of the way."""
    page = running.new_page(viewport={"width": 1600, "height": 900})
    page.route("**/*", stay_local)
    page.goto(url, timeout=LOAD_TIMEOUT_MS)
    page.wait_for_function(READY.format(node="LoadControlNet"), timeout=LOAD_TIMEOUT_MS)
    # The default graph arrives late and would replace what is loaded before it.
    page.wait_for_function("window.app.graph.nodes.length > 0", timeout=LOAD_TIMEOUT_MS)
    page.wait_for_timeout(1000)
    return page
