"""Changing and following the demo's workflow on a real server."""

from __future__ import annotations

from typing import Any

from comfy_client import Graph, Outcome

APPLY, SAMPLER, SAVE = "8", "10", "12"
"""Node ids in the workflow."""


def add(graph: Graph, node: str, class_type: str, **inputs: Any) -> list[Any]:
    """A further node; returns its first output as a link."""
    graph[node] = {"class_type": class_type, "inputs": inputs}
    return [node, 0]


def steps(outcome: Outcome) -> list[int]:
    """The steps that samplers have reported."""
    return [event["data"]["value"] for event in outcome.events if event["type"] == "progress"]
