"""The manual's way from nothing to a ControlNet, command by command, with everything that watches a run switched on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from controlnet_kit.cn_core.files import checkpoint
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.cn_core.preprocess.auto import Evidence, choose
from controlnet_kit.training.commands import main

RECIPE = """
[base]
path = "tiny"
[data]
path = "edges"
captions = "default"
resolution = 128
validation = 4
[validation]
every = 2
count = 2
steps = 2
probe_every = 1
[run]
steps = 3
batch = 2
trackers = "tensorboard"
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for pictures without captions, their edges, and a recipe."""
    return tmp_path_factory.mktemp("here")


def test_from_nothing_to_a_controlnet(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    assert main(["dataset", "fill50k", "circles", "--count", "16", "--size", "128"]) == 0
    drawn = ("--set", "low_threshold=[20,40]")
    assert main(["annotate", "circles/target", "edges", "--preprocessor", "canny", *drawn]) == 0
    capsys.readouterr()
    assert main(["lint", "edges", "--preprocessor", "canny", "--resolution", "128"]) == 0
    assert "error" not in capsys.readouterr().out
    (here / "mine.toml").write_text(RECIPE)
    assert main(["train", "mine.toml", "--output", "out/edges"]) == 0
    assert "edge_f1" in capsys.readouterr().out


def test_the_file_says_what_it_was_trained_with(here: Path) -> None:
    story = ControlNetMetadata.from_strings(checkpoint.read(here / "out" / "edges" / "edges.safetensors").metadata)
    assert story.condition == "canny" and story.fidelity is not None and "edge_f1" in story.fidelity
    chosen = choose(Evidence(name="edges", metadata=story), ())
    assert chosen.entry is not None and chosen.entry.node_id == "PreprocessCanny"
    assert vars(chosen.settings) == {"low_threshold": 30, "high_threshold": 200}


def test_the_report_has_curves_and_pictures(here: Path) -> None:
    page = (here / "out" / "edges" / "report.html").read_text()
    assert all(word in page for word in ("edge f1", "<svg", "data:image/"))
    assert sorted(path.suffix for path in (here / "out" / "edges" / "validation").iterdir())
    told = {json.loads(line)["event"] for line in (here / "out" / "edges" / "history.jsonl").read_text().splitlines()}
    assert {"StepDone", "Probed", "Validated", "Saved", "Finished"} <= told
    assert list((here / "out" / "edges").rglob("events.out.tfevents*"))
