"""What is wrong with data, settings or files is said in one message before the first step; nothing is written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from controlnet_kit.training.commands import main
from controlnet_kit.training.data.pictures import hashed
from controlnet_kit.training.synth import world
from picture_files import edges, picture, save
from PIL import Image
from safetensors.torch import load_file, save_file
from small_disk import small_disk

ASSETS = Path(__file__).resolve().parents[2] / "assets"
CANNY = ASSETS / "controlnets" / "tiny_canny.safetensors"
SHORT = ("--data.resolution", "128", "--data.validation", "2", "--batch", "2", "--steps", "1")
QUIET = ("--precision", "fp32", "--checkpointing", "none", "--micro-batch", "2", "--every", "0", "--probe-every", "0")
Break = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A good data set, and where a run would write."""

    root: Path

    @property
    def data(self) -> Path:
        """images/, hints/, captions/."""
        return self.root / "set"

    @property
    def output(self) -> Path:
        """Of the run."""
        return self.root / "out"

    def train(self, *more: str) -> int:
        """The exit code of a run on it."""
        places = ("--data.path", str(self.data), "--cache", str(self.root / "cache"), "--output", str(self.output))
        return main(["train", "fill50k-tiny", "--data.format", "auto", *SHORT, *QUIET, *places, *more])

    def files(self) -> dict[str, bytes]:
        """Everything there is, but for the notes on pictures that were read (sizes, hashes)."""
        found = (path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith("memo.sqlite"))
        return {str(path): path.read_bytes() for path in found}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Eight pairs of the tiny world."""
    here = Place(root=tmp_path)
    for seed in range(8):
        composition = world.compose(seed)
        save(here.data / "images" / f"{seed}.png", composition.image)
        save(here.data / "hints" / f"{seed}.png", edges(composition.image))
        (here.data / "captions").mkdir(exist_ok=True)
        (here.data / "captions" / f"{seed}.txt").write_text(composition.caption)
    return here


def resized(name: str, width: int, height: int) -> Break:
    """Picture and hint take another size."""

    def work(data: Path) -> None:
        for kind in ("images", "hints"):
            path = data / kind / f"{name}.png"
            Image.open(path).resize((width, height)).save(path)

    return work


def replaced(path: str, image: Image.Image) -> Break:
    """Another picture takes the place of one."""

    def work(data: Path) -> None:
        (data / path).unlink()
        image.save((data / path).with_suffix(".jpg" if image.mode == "CMYK" else ".png"))

    return work


def sixteen_bit(data: Path) -> None:
    """A hint as depth cameras write it."""
    cv2.imwrite(str(data / "hints" / "3.png"), np.arange(128 * 128, dtype=np.uint16).reshape(128, 128))


def without_words(data: Path) -> None:
    """All captions are there, and empty."""
    for path in (data / "captions").iterdir():
        path.write_text("\n")


def empty_list(data: Path) -> None:
    """fill50k's list, without a line."""
    shutil.rmtree(data / "captions")
    (data / "prompt.json").write_text("")


SQUARE = Image.fromarray(picture(3))
HOLE = SQUARE.convert("RGBA")
HOLE.putpixel((5, 5), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda data: (data / "hints" / "3.png").unlink(), r"not complete \(3\).*has no hint hints/3"),
        (lambda data: (data / "images" / "3.png").unlink(), r"not complete \(3\).*3\.png has no picture"),
        (lambda data: (data / "images" / "3.png").write_bytes(b"\x89PNG\r\n"), r"3\.png is no whole picture"),
        (lambda data: (data / "hints" / "3.png").write_bytes(b""), r"3\.png is no whole picture"),
        (resized("3", 128, 96), r"1 of 8 pictures do not fit \(3 is 128x96\).*data\.buckets.*data\.crop"),
        (replaced("hints/3.png", SQUARE.resize((128, 64))), r"128x128 and its hint 128x64; expected the same prop"),
        (resized("3", 1, 1), "1x1 pixels; expected at least 8"),
        (replaced("images/3.png", SQUARE.convert("CMYK")), r"3\.jpg has the colours CMYK.*Convert it to sRGB"),
        (sixteen_bit, r"3\.png has 16 bits a channel; expected 8"),
        (replaced("images/3.png", HOLE), r"3\.png has transparent pixels.*Flatten it"),
        (without_words, "no captions, or all are empty. Set data.captions"),
        (empty_list, "has no pairs of pictures"),
        (shutil.rmtree, "is not there. Set data.path to a folder of pairs"),
    ],
)
@pytest.mark.parametrize("lint", [(), ("--no-lint",)], ids=["lint", "no-lint"])
def test_pairs(
    place: Place, broken: Break, message: str, lint: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    broken(place.data)
    refused(place, lint, message, capsys)


def refused(place: Place, more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The run ends with 2 and one message, and all files are as they were."""
    before = place.files()
    assert place.train(*more) == 2
    said = capsys.readouterr().err.strip()
    assert re.search(message, said) and len(said.splitlines()) == 1
    assert place.files() == before and not place.output.exists()


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (np.zeros((128, 128), np.uint8), "the hint is of one colour"),
        (edges(picture(3)) // 255, "the hint's brightest value is 1 of 255"),
    ],
)
def test_blank_hints_are_found_outside_of_the_sample(
    place: Place, hint: np.ndarray, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{copy}{seed}" for copy in "abcdefghi" for seed in range(8)]
    for kind, suffix in (("images", "png"), ("hints", "png"), ("captions", "txt")):
        for name in names:
            shutil.copyfile(place.data / kind / f"{name[1]}.{suffix}", place.data / kind / f"{name}.{suffix}")
    last = max(names, key=lambda name: hashed([name]))
    save(place.data / "hints" / f"{last}.png", hint)
    refused(place, (), rf"1 of 80 pairs cannot be used \({last}\); {message}", capsys)


def test_sizes_may_be_mixed_when_that_is_wanted(place: Place) -> None:
    resized("3", 128, 96)(place.data)
    assert place.train("--data.crop", "centre", "--no-lint", "--data.validation", "0") == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--lerning-rate", "1"), "Did you mean learning_rate"),
        (("--data.hints", "cany"), "Did you mean canny"),
        (("--base.path", str(CANNY)), "tiny_canny.safetensors is no base"),
        (("--target.init", str(ASSETS / "tiny_vae.safetensors")), "must be the file of a ControlNet"),
        (("--optimizer.name", "sgd", "--optimizer.weights", "bf16"), "needs adamw or adamw8bit, got sgd"),
        (("--data.variants", "3"), "data.crop to .random., or data.randomise"),
        (("--data.hints", "depth"), "depth"),
        (("--output", "/dev/null/run"), "run cannot be made: /dev/null is no folder"),
    ],
)
def test_settings(place: Place, more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(place, more, message, capsys)


def test_a_disk_without_room_for_a_checkpoint(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(place.root / "disk", "40m") as disk:
        refused(
            place, ("--output", str(disk / "run")), r"The disk of .*run has .* free, and a checkpoint takes", capsys
        )


def test_an_unknown_key_in_a_recipe(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = place.root / "mine.toml"
    recipe.write_text("[optimizer]\nlerning_rate = 1e-3\n")
    assert main(["train", str(recipe), "--output", str(place.output)]) == 2
    assert "no setting 'lerning_rate'. Did you mean learning_rate?" in capsys.readouterr().err
    assert not place.output.exists()


def wider(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A ControlNet whose texts are of another width: for another base."""
    return {
        name: torch.cat([value, value], dim=1) if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) else value
        for name, value in tensors.items()
    }


def four_channels(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A ControlNet whose hints have four channels."""
    first = "input_hint_block.0.weight"
    return {**tensors, first: torch.cat([tensors[first], tensors[first][:, :1]], dim=1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wider, r"other\.safetensors is a ControlNet for .*context_dim 128 instead of 64.*Set target\.init"),
        (
            four_channels,
            r"other\.safetensors takes hints of 4 channels.*, and this run hints of 3.*keep_hint_encoder to false",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["controlnet", "control_lora"])
def test_files_to_begin_with(
    place: Place,
    kind: str,
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = place.root / "other.safetensors"
    save_file({name: value.contiguous() for name, value in change(load_file(CANNY)).items()}, file)
    kept = ("--target.kind", kind, "--target.init", str(file), "--target.keep-hint-encoder", "true")
    refused(place, kept, message, capsys)


def test_a_folder_of_someone_else(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.output.mkdir()
    (place.output / "poem.txt").write_text("o")
    before = place.files()
    assert place.train() == 2
    assert "holds files and no run of this trainer: nothing was written" in capsys.readouterr().err
    assert place.files() == before


def test_going_on_with_other_settings_data_or_base(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.train("--no-lint") == 0
    before = place.files()
    assert place.train("--learning-rate", "0.5", "--steps", "2", "--rank", "3") == 2
    said = capsys.readouterr().err
    assert "optimizer.learning_rate 0.5, was 0.001" in said and "target.rank 3, was 64" in said
    assert "run.steps" not in said and place.files() == before
    for path in (place.data / "captions").iterdir():
        path.write_text("something else")
    before = place.files()
    assert place.train("--no-lint", "--steps", "2") == 2
    assert "data.path holds something else than when the run" in capsys.readouterr().err
    assert place.files() == before


def test_a_list_of_pairs_that_are_not_there(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"source": "hints/99.png", "target": "images/3.png", "prompt": "a"}
    (place.data / "prompt.json").write_text(json.dumps(row) + "\n")
    refused(place, (), r"prompt\.json:1 names .*99\.png, which is not there", capsys)
