"""After an error or an interrupt: a clear message, and the next prompt works."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comfy_client import ComfyClient, Event, Graph, Outcome, inputs_of
from comfy_server import ComfyServer
from controlnet_kit.cn_core.networks.config import TINY
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from safetensors.torch import save_file

ASSET = Path(__file__).resolve().parents[2] / "assets" / "controlnets" / "tiny_canny.safetensors"


def truncated(file: Path) -> None:
    file.write_bytes(ASSET.read_bytes()[:100_000])


def garbage(file: Path) -> None:
    file.write_bytes(b"this is not a checkpoint" * 100)


def lora(file: Path) -> None:
    names = ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "lora_unet_x.lora_up.weight")
    save_file({name: torch.zeros(4, 4) for name in names}, file)


def of_another_model(file: Path) -> None:
    """As small as the tiny base, with SDXL's text width."""
    save_file(ControlNet(replace(TINY, context_dim=2048)).state_dict(), file)


@pytest.mark.parametrize(
    ("write", "node", "words"),
    [
        (truncated, "LoadControlNet", ("bad.safetensors",)),
        (garbage, "LoadControlNet", ("bad.safetensors",)),
        (lora, "LoadControlNet", ("bad.safetensors", "looks like a LoRA", "models/loras")),
        (of_another_model, "KSampler", ("bad.safetensors", "context 2048", f"the model takes {TINY.context_dim}")),
    ],
)
def test_a_bad_file_is_named_and_the_next_prompt_works(
    client: ComfyClient,
    server: ComfyServer,
    graph: Graph,
    assert_still_works: Callable[[Outcome], None],
    write: Callable[[Path], None],
    node: str,
    words: tuple[str, ...],
):
    file = server.base / "models" / "controlnet" / "bad.safetensors"
    write(file)
    try:
        inputs_of(graph, "LoadControlNet")["control_net_name"] = file.name
        outcome = client.run(graph)
    finally:
        file.unlink()
    assert outcome.status == "execution_error"
    assert outcome.details["node_type"] == node
    for word in words:
        assert word in outcome.details["exception_message"]
    assert not [event for event in outcome.events if event["type"] == "progress"]
    assert_still_works(outcome)


def test_a_picture_with_nan_is_refused(
    client: ComfyClient, server: ComfyServer, graph: Graph, assert_still_works: Callable[[Outcome], None]
):
    """Made with the host's own nodes: a latent file of NaN, decoded."""
    broken = copy.deepcopy(graph)
    latents = {"latent_tensor": torch.full((1, 4, 16, 16), float("nan")), "latent_format_version_0": torch.zeros(0)}
    save_file(latents, server.base / "input" / "nan.latent")
    broken["20"] = {"class_type": "LoadLatent", "inputs": {"latent": "nan.latent"}}
    broken["21"] = {"class_type": "VAEDecode", "inputs": {"samples": ["20", 0], "vae": ["1", 2]}}
    inputs_of(broken, "ApplyControlNet")["image"] = ["21", 0]
    outcome = client.run(broken)
    assert outcome.status == "execution_error"
    assert outcome.details["node_type"] == "ApplyControlNet"
    assert "NaN" in outcome.details["exception_message"]
    assert_still_works(outcome)


def test_an_interrupt_stops_the_run_and_the_next_prompt_works(
    client: ComfyClient, graph: Graph, assert_still_works: Callable[[Outcome], None]
):
    asked: list[Event] = []

    def interrupt(event: Event) -> None:
        if event["type"] == "progress" and not asked:
            asked.append(event)
            client.post("/interrupt", {})

    inputs_of(graph, "KSampler").update(steps=5000, seed=11)
    outcome = client.run(graph, interrupt)
    assert outcome.status == "execution_interrupted"
    assert max(event["data"]["value"] for event in outcome.events if event["type"] == "progress") < 4000
    assert_still_works(outcome)
