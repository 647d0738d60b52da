"""The pack in a real server, over HTTP and the websocket."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_client import ComfyClient, Graph, PromptRejectedError, inputs_of
from comfy_server import ComfyServer, log_tail
from PIL import Image

NODES = ("LoadControlNet", "ApplyControlNet", "PreprocessCanny", "LoadTinyBase")
CORE_NAMES = {"ApplyControlNet": "ControlNetApplyAdvanced", "LoadControlNet": "ControlNetLoader"}


def picture(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))


@pytest.mark.parametrize("node", NODES)
def test_nodes_are_registered_and_documented(client: ComfyClient, server: ComfyServer, node: str):
    info = client.get(f"/object_info/{node}")[node]
    assert info["python_module"] == "custom_nodes.comfyui-controlnet-kit", log_tail(server.log)
    assert info["description"]
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    assert [name for name, (_, options) in inputs.items() if not options.get("tooltip")] == []


def test_fields_are_those_of_the_hosts_own_node(client: ComfyClient):
    """So that API prompts for ControlNetApplyAdvanced run with only the class name changed."""
    names = ("ApplyControlNet", "ControlNetApplyAdvanced")
    ours, theirs = (client.get(f"/object_info/{name}")[name]["input_order"] for name in names)
    for section, fields in theirs.items():
        assert ours[section][: len(fields)] == fields


def test_a_prompt_runs_from_upload_to_view(client: ComfyClient, graph: Graph):
    inputs_of(graph, "KSampler")["steps"] = 20
    outcome = client.run(graph)
    assert outcome.status == "execution_success", outcome.details
    steps = [event["data"] for event in outcome.events if event["type"] == "progress"]
    assert steps[-1]["value"] == steps[-1]["max"] == 20
    record = client.history(outcome.prompt_id)
    assert record["status"]["completed"]
    files = client.images(outcome.prompt_id)
    by_class = {graph[node]["class_type"]: picture(images[0]) for node, images in files.items()}
    assert {name: image.shape for name, image in by_class.items()} == {
        "PreviewImage": (128, 128, 3),
        "SaveImage": (128, 128, 3),
    }
    assert set(np.unique(by_class["PreviewImage"])) == {0, 255}


def test_same_picture_as_the_hosts_own_nodes(client: ComfyClient, graph: Graph):
    """Bit for bit, with only the class names swapped."""
    ours = client.images(client.run(graph).prompt_id)
    for node in graph.values():
        node["class_type"] = CORE_NAMES.get(node["class_type"], node["class_type"])
    theirs = client.images(client.run(graph).prompt_id)
    assert ours.keys() == theirs.keys()
    for node, files in ours.items():
        np.testing.assert_array_equal(picture(files[0]), picture(theirs[node][0]))


def test_control_changes_the_picture_and_strength_0_does_not(client: ComfyClient, graph: Graph):
    def final() -> np.ndarray:
        images = client.images(client.run(graph).prompt_id)
        return next(picture(files[0]) for node, files in images.items() if graph[node]["class_type"] == "SaveImage")

    apply, sampler = inputs_of(graph, "ApplyControlNet"), inputs_of(graph, "KSampler")
    controlled = final()
    apply["strength"] = 0.0
    off = final()
    sampler.update(positive=apply["positive"], negative=apply["negative"])
    without = final()
    assert not np.array_equal(controlled, without)
    np.testing.assert_array_equal(off, without)


@pytest.mark.parametrize(
    ("node", "name", "value", "kind"),
    [
        ("LoadControlNet", "control_net_name", "nowhere.safetensors", "value_not_in_list"),
        ("LoadControlNet", "control_net_name", "../../../etc/passwd", "value_not_in_list"),
        ("LoadControlNet", "control_net_name", None, "required_input_missing"),
        ("ApplyControlNet", "strength", 10.5, "value_bigger_than_max"),
        ("ApplyControlNet", "start_percent", -0.1, "value_smaller_than_min"),
        ("ApplyControlNet", "control_net", ["1", 0], "return_type_mismatch"),
        ("ApplyControlNet", "image", None, "required_input_missing"),
        ("PreprocessCanny", "low_threshold", "many", "invalid_input_type"),
        ("PreprocessCanny", "resolution", -8, "value_smaller_than_min"),
    ],
)
def test_a_bad_prompt_is_refused_with_the_nodes_name(
    client: ComfyClient, graph: Graph, node: str, name: str, value: Any, kind: str
):
    inputs = inputs_of(graph, node)
    inputs.pop(name)
    if value is not None:
        inputs[name] = value
    with pytest.raises(PromptRejectedError) as caught:
        client.run(graph)
    (errors,) = (errors for errors in caught.value.node_errors.values() if errors["class_type"] == node)
    assert [error["type"] for error in errors["errors"]] == [kind]
    assert errors["errors"][0]["extra_info"]["input_name"] == name


def test_an_unknown_node_is_refused(client: ComfyClient, graph: Graph):
    graph["7"]["class_type"] = "LoadControlNetOfTheFuture"
    with pytest.raises(PromptRejectedError) as caught:
        client.run(graph)
    assert caught.value.error["type"] == "missing_node_type"


def test_help_pages_are_served(client: ComfyClient):
    pages = Path(__file__).resolve().parents[2] / "web" / "docs"
    for node in NODES:
        served = client.get_bytes(f"/extensions/comfyui-controlnet-kit/docs/{node}.md")
        assert served == (pages / f"{node}.md").read_bytes()
