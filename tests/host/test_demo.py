"""`make demo` on the session's server: what it writes, and that control works there."""

from __future__ import annotations

import json
from pathlib import Path

import demo
import pytest
from comfy_client import ComfyClient, Graph, inputs_of
from comfy_server import ComfyServer
from PIL import Image


@pytest.fixture(scope="module")
def rows(server: ComfyServer) -> list[demo.Pictures]:
    """All rows of the demo."""
    client = ComfyClient(server.url)
    return [demo.run_row(client, row) for row in demo.ROWS]


def test_it_writes_what_it_promises(rows: list[demo.Pictures], tmp_path: Path):
    demo.write(rows, 1.0, tmp_path / "out")
    names = [f"{row.name}_{kind}.png" for row in demo.ROWS for kind in ("hint", "without", "with")]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {*names, "overview.png", "result.json"}
    assert {Image.open(tmp_path / "out" / name).size for name in names} == {(128, 128)}
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    for row in result["rows"]:
        assert row.keys() == {"name", "prompt", "seed", "edge_f1", "seconds"}
        assert {"KSampler", "VAE decode"} <= row["seconds"].keys()


@pytest.mark.parametrize("index", range(len(demo.ROWS)), ids=[row.name for row in demo.ROWS])
def test_control_is_seen_at_once(rows: list[demo.Pictures], index: int):
    f1 = rows[index].edge_f1
    assert f1["with"] >= f1["without"] + 0.2, f1


def test_without_control_means_a_graph_without_it():
    graph: Graph = demo.load_graph(demo.ROWS[0], "x.png")
    assert inputs_of(graph, "KSampler")["positive"] == ["8", 0]
    assert inputs_of(demo.without_control(graph), "KSampler")["positive"] == ["2", 0]
    assert inputs_of(graph, "KSampler")["positive"] == ["8", 0]
