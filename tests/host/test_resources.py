"""What the pack costs the server: imports at start-up, memory over many prompts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from comfy_client import ComfyClient, Graph, inputs_of
from comfy_server import ComfyServer
from import_times import parse

HEAVY = ("torch", "torchvision", "cv2", "diffusers", "transformers", "accelerate", "datasets", "comfy")
WARM_UP, PROMPTS, MARGIN_MB = 6, 20, 24


def resident_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_over_20_prompts(client: ComfyClient, server: ComfyServer, graph: Graph):
    """Every prompt loads a ControlNet, prepares a hint and samples anew.

    What counts is the lowest of the last five prompts against the highest of the first six, so that neither the
    allocator's warm-up nor one late peak decides; a kept ControlNet (6 MB) a prompt would make 90 MB.
    """
    names = ("tiny_canny.safetensors", "tiny_silhouette.safetensors")
    sizes = []
    for number in range(PROMPTS):
        inputs_of(graph, "LoadControlNet")["control_net_name"] = names[number % 2]
        inputs_of(graph, "PreprocessCanny")["low_threshold"] = 50 + number
        inputs_of(graph, "KSampler")["seed"] = 1000 + number
        outcome = client.run(graph)
        assert outcome.status == "execution_success", outcome.details
        sizes.append(resident_mb(server.pid))
    assert min(sizes[-5:]) <= max(sizes[:WARM_UP]) + MARGIN_MB, [round(size) for size in sizes]


def test_start_up_imports_nothing_heavy(server: ComfyServer):
    """Everything heavy that the nodes need, the host had already; opencv waits until a preprocessor runs."""
    start_up, _, _ = server.log.read_text().partition("To see the GUI go to")
    modules = parse(start_up).modules
    assert ".nodes" in modules
    assert [name for name in modules if name.split(".")[0] in HEAVY] == []


def test_import_log_is_read_as_python_writes_it():
    log = """
import time:       100 |        100 |   torch
import time:        10 |         10 |       json
import time:        20 |         30 |     cv2
import time:         5 |         35 |   /b/custom_nodes/comfyui-controlnet-kit.nodes
import time:         7 |          7 |   aiohttp
"""
    times = parse(log)
    assert times.modules == ("json", "cv2", ".nodes")
    assert times.seconds == pytest.approx(35e-6)
