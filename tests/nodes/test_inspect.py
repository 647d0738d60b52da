"""`InspectControlNet`: the core's report, on the node and as outputs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from controlnet_kit.cn_core.files.checkpoint import read
from controlnet_kit.cn_core.files.inspect import describe
from controlnet_kit.nodes.inspect import InspectControlNet
from controlnet_kit.nodes.load import LoadControlNet, located
from controlnet_kit.nodes.tiny import ASSETS
from random_models import SHAPES, control_tensors, controlnet_file


def inspected(name: str) -> Any:
    """All that the node returns."""
    node: Any = InspectControlNet
    return node.PREPARE_CLASS_CLONE({"hidden_inputs": {}}).execute(control_net_name=name)


def test_it_is_the_cores_report_and_shows_it():
    name = controlnet_file(control_tensors(SHAPES["SDXL"].config), "sdxl_canny.safetensors")
    report, output = describe(read(located(name))), inspected(name)
    assert output.result == (report.to_text(), report.to_json())
    assert output.ui.as_dict() == {"text": (report.to_text(),)}
    found = json.loads(output.result[1])
    assert (found["kind"], found["condition"], found["preprocessor"]) == ("ControlNet", "canny edges", "canny")


def test_the_shipped_controlnets_tell_what_they_are():
    report = describe(read(ASSETS / "controlnets" / "tiny_canny.safetensors")).to_text().splitlines()
    assert {"kind: ControlNet, run by this pack", "condition: canny", "metadata, resolution: 128"} <= set(report)
    assert not any(line.startswith("Warning") for line in report)


def test_it_lists_the_files_of_the_loader():
    ours, loader = (
        node.INPUT_TYPES()["required"]["control_net_name"][1] for node in (InspectControlNet, LoadControlNet)
    )
    assert ours["options"] == loader["options"]


def test_names_are_looked_up_in_the_hosts_folders():
    with pytest.raises(FileNotFoundError):
        inspected("../../etc/passwd")
