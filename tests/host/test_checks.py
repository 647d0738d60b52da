"""Choosing, checking and measuring in a real server: the prompts that ship."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_client import ComfyClient, Graph, PromptRejectedError, inputs_of
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"


def prompt(client: ComfyClient, name: str) -> Graph:
    """As it ships, its picture uploaded."""
    graph: Graph = json.loads((EXAMPLES / "api" / f"{name}.json").read_text())
    inputs = inputs_of(graph, "LoadImage")
    inputs["image"] = client.upload(EXAMPLES / "inputs" / inputs["image"])
    return graph


def ran(client: ComfyClient, graph: Graph) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The texts and the first pictures that nodes show, by the nodes' numbers."""
    outcome = client.run(graph)
    assert outcome.status == "execution_success", outcome.details
    outputs: dict[str, Any] = client.history(outcome.prompt_id)["outputs"]
    texts = {node: shown["text"][0] for node, shown in outputs.items() if "text" in shown}
    images = client.images(outcome.prompt_id)
    return texts, {node: np.asarray(Image.open(io.BytesIO(files[0]))) for node, files in images.items() if files}


def test_auto_preprocessor(client: ComfyClient):
    texts, pictures = ran(client, prompt(client, "checks/auto_preprocessor"))
    assert texts["4"].startswith("Chose canny because its file says that PreprocessCanny made its training hints")
    assert pictures["5"].shape[:2] == (128, 128)
    assert set(np.unique(pictures["5"])) == {0, 255}


def test_control_fidelity_is_higher_with_control(client: ComfyClient):
    graph = prompt(client, "auto_preprocessor")
    texts, pictures = ran(client, graph)
    with_control = float(texts["13"].split()[1])
    assert texts["13"].startswith("edge_f1 ")
    assert pictures["14"].shape[1] == 128 and pictures["14"].shape[0] > 128
    inputs_of(graph, "ApplyControlNet")["strength"] = 0.0
    without = float(ran(client, graph)[0]["13"].split()[1])
    assert with_control > without + 0.2


def test_check_control_map_turns_a_drawing_in_ink(client: ComfyClient):
    texts, pictures = ran(client, prompt(client, "checks/check_control_map"))
    assert "looks like black lines on white" in texts["3"]
    assert pictures["4"].mean() < 127


@pytest.mark.parametrize(
    ("name", "node", "field", "value"),
    [
        ("checks/auto_preprocessor", "AutoPreprocessor", "when_already_a_map", "maybe"),
        ("auto_preprocessor", "ControlFidelity", "preprocessor", "none of them"),
        ("auto_preprocessor", "ControlFidelity", "tolerance", -1),
        ("checks/check_control_map", "CheckControlMap", "kind", "drawing"),
    ],
)
def test_values_that_are_not_allowed_are_refused(client: ComfyClient, name: str, node: str, field: str, value: object):
    graph = prompt(client, name)
    inputs_of(graph, node)[field] = value
    with pytest.raises(PromptRejectedError, match=field):
        client.run(graph)
