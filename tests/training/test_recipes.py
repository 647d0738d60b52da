"""Every recipe that ships runs on the embedded base, through all of its phases."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from controlnet_kit.training.bases.open import open_base
from controlnet_kit.training.config import TrainConfig
from controlnet_kit.training.events import Finished, StepDone
from controlnet_kit.training.flags import RECIPES, shipped
from training_runs import RandomSamples, finished, of_kind, trainer

HERE = {
    "base.path": "tiny",
    "run.steps": "3",
    "run.batch": "2",
    "run.log_every": "1",
    "hardware.micro_batch": "2",
    "hardware.compile": "false",
    "target.rank": "4",
}
"""What a machine without a GPU and a real base needs."""
ABLATIONS = ("ablation-gaussian", "ablation-input-channels", "ablation-data-scale")
PHASES = ("target.reconnect_at", "target.unlock_decoder_at")
"""Steps at which something changes: here the second."""


def small(recipe: str, output: Path) -> TrainConfig:
    """The recipe for three steps here."""
    path = RECIPES / f"{recipe}.toml"
    config = TrainConfig.from_toml(path)
    tables = config.to_dict()
    phases = {name: "1" for name in PHASES if tables["target"][name.partition(".")[2]]}
    return TrainConfig.from_toml(path, {**HERE, **phases, "run.output": str(output)})


@pytest.mark.parametrize("recipe", shipped())
def test_three_steps(tmp_path: Path, recipe: str) -> None:
    config = small(recipe, tmp_path / recipe)
    with torch.compiler.set_stance("force_eager"):  # torchao compiles its optimisers' steps, for a minute
        run = trainer(config, RandomSamples(), base=open_base(config.base))
        events = finished(run)
    losses = [step.loss for step in of_kind(events, StepDone)]
    assert len(losses) == 3 and all(0 < loss < 5 for loss in losses)
    (done,) = of_kind(events, Finished)
    decoder = done.path.with_name(f"{recipe}-decoder.safetensors")
    assert done.path.is_file() and decoder.is_file() == bool(
        config.target.unlock_decoder_at and recipe == "large-scale"
    )


def test_those_of_the_issue_are_there() -> None:
    wanted = {"fill50k-tiny", "sd15", "sd21-v", "sdxl", "small-scale", "large-scale", "shallow-first", "control-lora"}
    assert wanted | {"lllite", "canny-tiny", *ABLATIONS} <= set(shipped())
    for recipe in shipped():
        text = (RECIPES / f"{recipe}.toml").read_text(encoding="utf-8")
        assert text.startswith("# ") and f'output = "out/{recipe}"' in text


@pytest.mark.parametrize("recipe", ABLATIONS)
def test_ablations_differ_from_their_peer_in_one_thing(recipe: str) -> None:
    peer, other = (TrainConfig.from_toml(RECIPES / f"{name}.toml").to_dict() for name in ("canny-tiny", recipe))
    differing = {table for table in peer if peer[table] != other[table]}
    assert differing == {"run", "data" if recipe == "ablation-data-scale" else "target"}
    assert {**peer["run"], "output": ""} == {**other["run"], "output": ""}
