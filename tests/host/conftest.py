"""The demo's workflow, ready to run on the session's server."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from comfy_client import ComfyClient, Graph, Outcome, inputs_of

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"


@pytest.fixture(scope="session")
def workflow() -> Graph:
    """The canny workflow as it ships, with two steps only."""
    graph: Graph = json.loads((EXAMPLES / "api" / "canny.json").read_text())
    inputs_of(graph, "KSampler")["steps"] = 2
    return graph


@pytest.fixture
def graph(client: ComfyClient, workflow: Graph) -> Graph:
    """A copy to change, its picture uploaded."""
    graph = copy.deepcopy(workflow)
    inputs_of(graph, "LoadImage")["image"] = client.upload(EXAMPLES / "inputs" / "photo.png")
    return graph


@pytest.fixture
def assert_still_works(client: ComfyClient, graph: Graph):
    """Called after a failure: the next prompt must succeed, sampling included."""
    good = copy.deepcopy(graph)

    def check(failed: Outcome | None = None) -> None:
        inputs_of(good, "KSampler")["seed"] = abs(hash(failed.prompt_id if failed else "")) % 2**31
        assert client.run(good).status == "execution_success"

    return check
