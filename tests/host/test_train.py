"""Training in a real server: the prompt that ships, cancelling and going on, bad prompts, and what was saved."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_client import ComfyClient, Event, Graph, Outcome, PromptRejectedError, inputs_of
from comfy_server import ComfyServer
from controlnet_kit.cn_core.files.checkpoint import read
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from picture_files import edges, picture, save
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"
TRAIN, SAVE, PICTURE = "7", "16", "15"
"""Node ids in the workflow."""


@pytest.fixture
def training(client: ComfyClient) -> Graph:
    """The workflow as it ships, with small pictures and few steps."""
    graph: Graph = json.loads((EXAMPLES / "api" / "train.json").read_text())
    inputs_of(graph, "LoadImage")["image"] = client.upload(EXAMPLES / "inputs" / "photo.png")
    graph["5"]["inputs"]["steps"] = graph["13"]["inputs"]["steps"] = 2
    graph[TRAIN]["inputs"].update(
        steps=20, batch=4, resolution=64, preview_every=10, validate_every=20, settings="validation.steps = 2"
    )
    return graph


def files(server: ComfyServer, pattern: str) -> list[Path]:
    """In the output folder."""
    return sorted((server.base / "output" / "controlnet").glob(pattern))


def final(client: ComfyClient, outcome: Outcome) -> np.ndarray:
    """What was drawn with the control."""
    return np.asarray(Image.open(io.BytesIO(client.images(outcome.prompt_id)[PICTURE][0])))


def values(outcome: Outcome) -> list[int]:
    """Steps that the training reported."""
    progress = (event["data"] for event in outcome.events if event["type"] == "progress")
    return [data["value"] for data in progress if data["node"] == TRAIN]


def test_trained_applied_and_saved_in_one_prompt(client: ComfyClient, server: ComfyServer, training: Graph):
    training[TRAIN]["inputs"]["save_name"] = "whole"
    outcome = client.run(training)
    assert outcome.status == "execution_success", outcome.details
    assert values(outcome)[-1] == 20
    with_control = final(client, outcome)
    (plot,) = client.images(outcome.prompt_id)[TRAIN]
    assert Image.open(io.BytesIO(plot)).width == 960
    assert TRAIN not in client.run(training).seconds
    (path,) = files(server, "my_canny_*.safetensors")[-1:]
    story = ControlNetMetadata.from_strings(read(path).metadata)
    assert (story.preprocessor, story.steps) == ("PreprocessCanny", 20) and story.fidelity is not None
    theirs = loaded_by_the_host(training, path, server)
    np.testing.assert_array_equal(final(client, client.run(theirs)), with_control)
    inputs_of(theirs, "ControlNetApplyAdvanced")["strength"] = 0.0
    assert not np.array_equal(final(client, client.run(theirs)), with_control)


def loaded_by_the_host(training: Graph, path: Path, server: ComfyServer) -> Graph:
    """The same picture, from the saved file, with the host's own nodes."""
    shutil.copy(path, server.base / "models" / "controlnet" / "trained.safetensors")
    graph = {key: node for key, node in training.items() if key not in (TRAIN, SAVE, "4", "5", "6", "8")}
    graph[TRAIN] = {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "trained.safetensors"}}
    apply = graph["11"]
    names = ("positive", "negative", "control_net", "image", "strength", "start_percent", "end_percent")
    graph["11"] = {
        "class_type": "ControlNetApplyAdvanced",
        "inputs": {name: apply["inputs"][name] for name in names},
    }
    return graph


def test_diffusers_loads_it(client: ComfyClient, server: ComfyServer, training: Graph):
    from diffusers.models.controlnets.controlnet import ControlNetModel

    training[TRAIN]["inputs"].update(steps=2, save_name="for diffusers")
    training[SAVE]["inputs"].update(layout="diffusers folder", filename_prefix="for_diffusers", dtype="fp32")
    outcome = client.run(training)
    assert outcome.status == "execution_success", outcome.details
    (folder,) = files(server, "for_diffusers_*_")
    assert sum(p.numel() for p in ControlNetModel.from_pretrained(folder).parameters()) > 1_000_000


def test_cancelled_and_queued_again_it_ends_as_if_nothing_had_been(
    client: ComfyClient, server: ComfyServer, training: Graph, assert_still_works: Callable[[Outcome], None]
):
    asked: list[Event] = []

    def interrupt(event: Event) -> None:
        if event["type"] == "progress" and event["data"]["node"] == TRAIN and not asked:
            asked.append(event)
            client.post("/interrupt", {})

    inputs = training[TRAIN]["inputs"]
    inputs.update(save_name="cancelled", steps=60, preview_every=0, validate_every=0)
    outcome = client.run(training, interrupt)
    assert outcome.status == "execution_interrupted" and outcome.details["node_id"] == TRAIN
    assert files(server, "training/cancelled-*/checkpoints/step-*")
    assert_still_works(outcome)
    resumed = client.run(training)
    assert resumed.status == "execution_success", resumed.details
    assert values(resumed)[0] > 1 and values(resumed)[-1] == 60
    inputs["save_name"] = "uninterrupted"
    assert client.run(training).status == "execution_success"
    ends = [
        read(files(server, f"training/{name}-*/*.safetensors")[0]).tensors for name in ("cancelled", "uninterrupted")
    ]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[1])


def test_a_folder_of_pairs(client: ComfyClient, server: ComfyServer, training: Graph):
    folder = server.base / "input" / "pairs"
    for seed in range(6):
        save(folder / "images" / f"{seed}.png", picture(seed))
        save(folder / "hints" / f"{seed}.png", edges(picture(seed)))
    inputs = {"folder": "pairs", "layout": "auto", "captions": "default"}
    training["20"] = {"class_type": "LoadTrainingPairs", "inputs": inputs}
    training[TRAIN]["inputs"].update(pairs=["20", 0], preprocessor="none", steps=2, save_name="folder")
    del training[TRAIN]["inputs"]["images"]
    outcome = client.run(training)
    assert outcome.status == "execution_success", outcome.details
    inputs["folder"] = "../models"
    with pytest.raises(PromptRejectedError, match="value_not_in_list"):
        client.run(training)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preprocessor": "none"}, "there is neither"),
        ({"preprocessor": "cany"}, "There is no preprocessor"),
        ({"hints": ["6", 0]}, "there are both"),
        ({"images": None}, "neither is connected"),
        ({"captions": " "}, "no captions"),
        ({"save_name": "../../x"}, "save_name is"),
        ({"settings": "optimizer.nmae = 1"}, "Did you mean"),
        ({"settings": "what?"}, "not valid TOML"),
        ({"steps": 0}, "value_smaller_than_min"),
        ({"target": "everything"}, "value_not_in_list"),
    ],
)
def test_bad_prompts_are_refused(client: ComfyClient, training: Graph, changes: dict[str, object], words: str):
    inputs = training[TRAIN]["inputs"]
    inputs.update(changes)
    training[TRAIN]["inputs"] = {name: value for name, value in inputs.items() if value is not None}
    with pytest.raises(PromptRejectedError, match=words):
        client.run(training)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"captions": "a\nb"}, "16 images and 2 captions"),
        ({"hints": ["10", 0], "preprocessor": "none"}, "16 images and 1 hints"),
        ({"resolution": 72}, "multiples of 16"),
        ({"settings": "run.seed = 3"}, "set by the node itself"),
    ],
)
def test_what_only_the_pictures_tell_is_refused_before_the_first_step(
    client: ComfyClient, training: Graph, changes: dict[str, object], words: str
):
    training[TRAIN]["inputs"].update(changes)
    outcome = client.run(training)
    assert outcome.status == "execution_error" and outcome.details["node_id"] == TRAIN
    assert words in outcome.details["exception_message"] and not values(outcome)
