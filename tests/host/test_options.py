"""The options in a real server: prompts that use them, and what is said afterwards."""

from __future__ import annotations

import io

import numpy as np
from comfy_client import ComfyClient, Graph, Outcome
from comfy_server import ComfyServer
from graphs import APPLY, SAMPLER, SAVE, add
from PIL import Image


def pictures(client: ComfyClient, outcome: Outcome, node: str = SAVE) -> list[np.ndarray]:
    """What a node has saved or previewed."""
    assert outcome.status == "execution_success", outcome.details
    return [np.asarray(Image.open(io.BytesIO(file))).astype(float) for file in client.images(outcome.prompt_id)[node]]


def ran(outcome: Outcome, graph: Graph) -> set[str]:
    """The class names of the nodes that were not taken from the cache."""
    nodes = {event["data"]["node"] for event in outcome.events if event["type"] == "executing"}
    return {graph[node]["class_type"] for node in nodes if node is not None}


def test_every_option_in_one_prompt(client: ComfyClient, graph: Graph):
    plain = pictures(client, client.run(graph))
    options = add(graph, "20", "ControlNetWindow", start=0.0, end=100.0, unit="% of this run")
    bands = dict.fromkeys(("composition", "structure", "detail", "positive", "negative"), 0.9)
    options = add(graph, "21", "ControlNetWeights", **bands, layers="", options=options)
    options = add(graph, "22", "ControlNetFrames", hints="repeat_last", strengths="0:8=0.9", options=options)
    options = add(graph, "23", "ControlNetStacking", stacking="normalized", calibrate=False, options=options)
    saving = {"every_steps": 2, "log_sigma": 0.5, "free_after_window": True}
    options = add(graph, "24", "ControlNetSaving", **saving, options=options)
    graph[APPLY]["inputs"] |= {
        "model": ["1", 0],
        "vae": ["1", 2],
        "effect_mask": add(graph, "25", "SolidMask", value=0.5, width=128, height=128),
        "control_mode": "ControlNet is more important",
        "resize_mode": "fill",
        "schedule": "1.0@0, 0.5@30%, 0@step 12",
        "options": options,
    }
    graph[SAMPLER]["inputs"]["model"] = [APPLY, 2]
    with_options = pictures(client, client.run(graph))
    assert with_options[0].shape == plain[0].shape
    assert not np.array_equal(with_options, plain)


def test_neutral_options_give_the_same_picture(client: ComfyClient, graph: Graph):
    """Bit for bit, all of them connected, and the model going through Apply."""
    plain = pictures(client, client.run(graph))
    options = add(graph, "20", "ControlNetSaving", every_steps=1, log_sigma=0.0, free_after_window=False)
    graph[APPLY]["inputs"] |= {
        "model": ["1", 0],
        "effect_mask": add(graph, "25", "SolidMask", value=1.0, width=64, height=64),
        "schedule": "1",
        "options": options,
    }
    graph[SAMPLER]["inputs"]["model"] = [APPLY, 2]
    np.testing.assert_array_equal(pictures(client, client.run(graph)), plain)


def test_a_prompt_of_cores_node_with_the_class_name_swapped(client: ComfyClient, graph: Graph):
    """All of the node's own fields, its optional VAE among them; and an API prompt does not need the new ones."""
    fields = ("positive", "negative", "control_net", "image")
    given = {name: graph[APPLY]["inputs"][name] for name in fields}
    window = {"strength": 0.8, "start_percent": 0.1, "end_percent": 0.9}
    add(graph, APPLY, "ControlNetApplyAdvanced", **given, **window, vae=["1", 2])
    graph["7"] = {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "tiny_canny.safetensors"}}
    graph[SAMPLER]["inputs"]["steps"] = 6
    core = pictures(client, client.run(graph))
    graph[APPLY]["class_type"] = "ApplyControlNet"
    np.testing.assert_array_equal(pictures(client, client.run(graph)), core)
    graph["7"]["class_type"] = "LoadControlNet"
    np.testing.assert_array_equal(pictures(client, client.run(graph)), core)


def test_the_hosts_fields_come_first(client: ComfyClient):
    """So that saved workflows and API prompts of ControlNetApplyAdvanced fit."""
    names = ("ApplyControlNet", "ControlNetApplyAdvanced")
    ours, theirs = (client.get(f"/object_info/{name}")[name] for name in names)
    for kind in ("required", "optional"):
        count = len(theirs["input_order"][kind])
        assert ours["input_order"][kind][:count] == theirs["input_order"][kind]
    assert ours["input_order"]["required"] == theirs["input_order"]["required"]
    assert ours["output"][:2] == theirs["output"]


def test_a_strength_sweep_in_one_batch(client: ComfyClient, graph: Graph):
    """Its first and last picture are those of single runs at these strengths, to the rounding of a pixel."""

    def alone(strength: float) -> np.ndarray:
        graph[APPLY]["inputs"]["strength"] = strength
        return pictures(client, client.run(graph))[0]

    expected = [alone(0.0), alone(1.0)]
    sweep = add(graph, "20", "ControlNetStrengthSweep", latent=["9", 0], first=0.0, last=1.0, count=3)
    graph[APPLY]["inputs"]["options"] = [sweep[0], 1]
    graph[SAMPLER]["inputs"]["latent_image"] = sweep
    swept = pictures(client, client.run(graph))
    assert len(swept) == 3
    assert np.abs(swept[0] - expected[0]).max() <= 1
    assert np.abs(swept[2] - expected[1]).max() <= 1
    assert np.abs(swept[0] - swept[2]).max() > 20


def test_preflight_stands_in_the_history(client: ComfyClient, graph: Graph):
    planned = {"steps": 20, "scheduler": "normal", "denoise": 0.4}
    add(graph, "20", "PreflightControlNet", model=["1", 0], positive=[APPLY, 0], latent=["9", 0], **planned)
    graph[APPLY]["inputs"]["end_percent"] = 0.5
    outcome = client.run(graph)
    (report,) = client.history(outcome.prompt_id)["outputs"]["20"]["text"]
    assert report.startswith("tiny_canny.safetensors: ControlNet")
    assert "acts in none of the 20 steps" in report
    assert "WARNING: No control: none of the 20 steps lies in the window" in report


def test_the_effect_map_shows_the_run_before_it(client: ComfyClient, graph: Graph):
    graph[APPLY]["inputs"]["options"] = add(graph, "20", "RecordControlNet")
    add(graph, "21", "ControlNetEffectMap", positive=[APPLY, 0], latent=[SAMPLER, 0])
    add(graph, "22", "PreviewImage", images=["21", 0])
    (effect,) = pictures(client, client.run(graph), "22")
    assert effect.shape == (128, 128, 3)
    assert effect.max() > 100


def said(server: ComfyServer, words: str, since: int) -> list[str]:
    """Lines of the server's log."""
    return [line for line in server.log.read_text(errors="replace")[since:].splitlines() if words in line]


def test_an_empty_window_is_said_once_in_the_log(client: ComfyClient, server: ComfyServer, graph: Graph):
    since = len(server.log.read_text(errors="replace"))
    graph[APPLY]["inputs"]["end_percent"] = 0.5
    graph[SAMPLER]["inputs"] |= {"denoise": 0.4, "steps": 4}
    assert client.run(graph).status == "execution_success"
    (line,) = said(server, "no control", since)
    assert "tiny_canny.safetensors: no control, none of the 4 steps of this run lies in its window" in line


def test_another_seed_prepares_nothing_anew(client: ComfyClient, graph: Graph):
    """Loaded network, hint and control stay in the server, and with them the control's cache of encoded hints."""
    graph[SAMPLER]["inputs"]["seed"] = 100
    client.run(graph)
    graph[SAMPLER]["inputs"]["seed"] = 101
    assert ran(client.run(graph), graph) == {"KSampler", "VAEDecode", "SaveImage"}


def test_reports_of_a_run_are_in_the_log(client: ComfyClient, server: ComfyServer, graph: Graph):
    """Reuse says its error, calibration its number."""
    since = len(server.log.read_text(errors="replace"))
    options = add(graph, "20", "ControlNetStacking", stacking="sum", calibrate=True)
    saving = {"every_steps": 2, "log_sigma": 0.0, "free_after_window": False}
    graph[APPLY]["inputs"]["options"] = add(graph, "21", "ControlNetSaving", **saving, options=options)
    graph[SAMPLER]["inputs"] |= {"steps": 6, "sampler_name": "euler", "scheduler": "normal"}
    assert client.run(graph).status == "execution_success"
    assert len(said(server, "tiny_canny.safetensors: computed 3 of 6 evaluations", since)) == 1
    assert len(said(server, "of the features' size; multiplied by", since)) == 1
