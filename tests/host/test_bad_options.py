"""Options that are wrong, in a real server: refused before anything runs, or else before the first step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from comfy_client import ComfyClient, Graph, PromptRejectedError
from graphs import APPLY, SAMPLER, add, steps


@pytest.mark.parametrize(
    ("node", "inputs", "said"),
    [
        ("ApplyControlNet", {"schedule": "1.0@0, 0.5@banana, 0@step 12"}, "Column 12"),
        ("ApplyControlNet", {"schedule": "1.0@0, 0.5"}, "Column 8"),
        ("ApplyControlNet", {"schedule": "1.0@0; 0.5@30%"}, "Column 5"),
        ("ControlNetSchedule", {"schedule": "1@0, 11@50%", "interpolation": "linear"}, "Column 6"),
        ("ControlNetFrames", {"hints": "cycle", "strengths": "0:8=0.5, nine=1"}, "Column 10"),
        ("ControlNetWeights", {"layers": "1, x"}, 'got "1, x"'),
    ],
)
def test_texts_that_cannot_be_read_are_refused_before_anything_runs(
    client: ComfyClient, graph: Graph, node: str, inputs: dict[str, Any], said: str
):
    if node == "ApplyControlNet":
        graph[APPLY]["inputs"] |= inputs
    else:
        numbers = dict.fromkeys(("composition", "structure", "detail", "positive", "negative"), 1.0)
        given = (numbers if node == "ControlNetWeights" else {}) | inputs
        graph[APPLY]["inputs"]["options"] = add(graph, "20", node, **given)
    with pytest.raises(PromptRejectedError) as caught:  # the client raises it for HTTP 400
        client.run(graph)
    (errors,) = (errors for errors in caught.value.node_errors.values() if errors["class_type"] == node)
    (error,) = errors["errors"]
    assert error["type"] == "custom_validation_failed"
    assert error["extra_info"]["input_name"] in inputs
    assert said in error["details"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("control_mode", "guess mode"),
        ("resize_mode", "zoom"),
        ("strength", 11.0),
        ("model", ["7", 0]),
        ("effect_mask", ["4", 0]),
    ],
)
def test_values_that_do_not_exist_are_refused(client: ComfyClient, graph: Graph, name: str, value: Any):
    graph[APPLY]["inputs"][name] = value
    with pytest.raises(PromptRejectedError) as caught:
        client.run(graph)
    assert [error["extra_info"]["input_name"] for error in caught.value.node_errors[APPLY]["errors"]] == [name]


def test_an_unknown_type_of_hint_is_refused(client: ComfyClient, graph: Graph):
    graph[APPLY]["inputs"]["control_net"] = add(
        graph, "20", "SetControlNetType", control_net=["7", 0], type="telepathy"
    )
    with pytest.raises(PromptRejectedError) as caught:
        client.run(graph)
    assert [error["type"] for error in caught.value.node_errors["20"]["errors"]] == ["value_not_in_list"]


def set_type(graph: Graph) -> None:
    typed = add(graph, "20", "SetControlNetType", control_net=["7", 0], type="depth")
    graph[APPLY]["inputs"]["control_net"] = typed


def set_nan(graph: Graph) -> None:
    graph[APPLY]["inputs"]["strength"] = float("nan")


def set_other_order(graph: Graph) -> None:
    graph[APPLY]["inputs"]["schedule"] = "0.5@60%, 1@10%"


def set_layers(graph: Graph) -> None:
    numbers = dict.fromkeys(("composition", "structure", "detail", "positive", "negative"), 1.0)
    graph[APPLY]["inputs"]["options"] = add(graph, "20", "ControlNetWeights", **numbers, layers="1, 1")


@pytest.mark.parametrize(
    ("break_it", "node", "words"),
    [
        (set_type, "SetControlNetType", ("depth",)),
        (set_nan, "ApplyControlNet", ("strength nan", "finite")),
        (set_other_order, "KSampler", ("schedule are out of order", "0.5@60%", "1@10%")),
        (set_layers, "KSampler", ("Got 2 weights of layers",)),
    ],
)
def test_what_only_shows_when_it_runs_is_said_before_the_first_step(
    client: ComfyClient, graph: Graph, break_it: Any, node: str, words: tuple[str, ...]
):
    broken = copy.deepcopy(graph)
    break_it(broken)
    outcome = client.run(broken)
    assert outcome.status == "execution_error"
    assert steps(outcome) == []
    assert outcome.details["node_type"] == node
    for word in words:
        assert word in outcome.details["exception_message"]


def test_the_model_output_without_a_model(client: ComfyClient, graph: Graph):
    """The host blocks what depends on it, and shows why."""
    graph[SAMPLER]["inputs"]["model"] = [APPLY, 2]
    outcome = client.run(graph)
    (error,) = (event["data"] for event in outcome.events if event["type"] == "execution_error")
    assert error["node_type"] == "KSampler"
    assert "ApplyControlNet has no model to pass on: connect its `model` input." in error["exception_message"]
    assert steps(outcome) == []
