"""Every recipe that ships runs on the embedded base, through all of its phases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from controlnet_kit.training.bases.open import open_base
from controlnet_kit.training.commands import main
from controlnet_kit.training.config import TrainConfig
from controlnet_kit.training.data import latent_hints
from controlnet_kit.training.events import Finished, StepDone, Validated
from controlnet_kit.training.flags import RECIPES, shipped
from controlnet_kit.training.planned import plan_samples
from controlnet_kit.training.synth import world
from controlnet_kit.training.watch.watchers import watchers
from picture_files import edges, save
from training_runs import finished, of_kind, trainer
from webdataset.writer import TarWriter

HERE = {
    "base.path": "tiny",
    "run.steps": "3",
    "run.batch": "2",
    "run.log_every": "1",
    "hardware.micro_batch": "2",
    "hardware.compile": "false",
    "target.rank": "4",
    "data.resolution": "64",
    "data.count": "12",
    "data.validation": "2",
    "validation.every": "3",
    "validation.count": "1",
    "validation.steps": "2",
    "validation.probe_every": "3",
}
"""What a machine without a GPU, a real base and real pictures needs."""
ABLATIONS = ("ablation-gaussian", "ablation-input-channels", "ablation-data-scale")
PHASES = ("target.reconnect_at", "target.unlock_decoder_at")
"""Steps at which something changes: here the second."""


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """data.format -> twelve pairs in it."""
    root = tmp_path_factory.mktemp("sets")
    assert main(["dataset", "fill50k", str(root / "fill50k"), "--count", "12", "--size", "64"]) == 0
    with TarWriter(str(root / "shard.tar")) as writer:
        for number in range(12):
            composition = world.compose(number)
            hint = np.repeat(edges(composition.image)[..., None], 3, axis=-1)
            writer.write(
                {"__key__": f"{number}", "png": composition.image, "hint.png": hint, "txt": composition.caption}
            )
            save(root / "pairs" / "images" / f"{number}.png", composition.image)
            save(root / "pairs" / "hints" / f"{number}.png", hint)
            (root / "pairs" / "captions").mkdir(exist_ok=True)
            (root / "pairs" / "captions" / f"{number}.txt").write_text(composition.caption)
    places = {"auto": "pairs", "fill50k": "fill50k", "webdataset": "shard.tar"}
    return {"tiny-world": "", **{name: str(root / place) for name, place in places.items()}}


def small(recipe: str, output: Path, sets: Mapping[str, str]) -> TrainConfig:
    """The recipe for three steps here."""
    path = RECIPES / f"{recipe}.toml"
    config = TrainConfig.from_toml(path)
    tables = config.to_dict()
    phases = {name: "1" for name in PHASES if tables["target"][name.partition(".")[2]]}
    places = {"run.output": str(output), "data.cache": f"{output}-cache", "data.path": sets[config.data.format]}
    return TrainConfig.from_toml(path, {**HERE, **phases, **places})


@pytest.mark.parametrize("recipe", shipped())
def test_three_steps(tmp_path: Path, recipe: str, sets: Mapping[str, str]) -> None:
    config = small(recipe, tmp_path / recipe, sets)
    base, kind = open_base(config.base), latent_hints.wanted(config.target)
    samples = plan_samples(config.data, base, seed=config.run.seed, latent_hints=kind).encoded()
    assert len(samples) == (20 if config.data.flip else 10) and len(samples.held_out) == 2
    with torch.compiler.set_stance("force_eager"):  # torchao compiles its optimisers' steps, for a minute
        events = finished(trainer(config, samples, base=base, watchers=watchers(config.validation)))
    (measured,) = of_kind(events, Validated)
    known = "canny" in (config.data.hints, config.data.condition)
    assert measured.held_out and measured.measure == ("edge_f1" if known else "ssim")
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
