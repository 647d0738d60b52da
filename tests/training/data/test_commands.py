"""The commands from end to end: dataset, annotate, lint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from controlnet_kit.cn_core.image import resize_hint, resize_short_side
from controlnet_kit.training.commands import main
from controlnet_kit.training.config import DataConfig
from controlnet_kit.training.data import fill50k
from controlnet_kit.training.data.annotate import Job, annotate_one
from controlnet_kit.training.data.colour_names import COLOURS
from controlnet_kit.training.data.formats.open import open_pairs
from controlnet_kit.training.data.hints import maker_of, to_images, to_pixels
from controlnet_kit.training.data.pairs import Pair, Pairs, each
from controlnet_kit.training.data.pictures import file_picture
from picture_files import Make, edges, picture, save
from PIL import Image


def test_the_tutorials_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dataset", "fill50k", "circles", "--count", "24", "--size", "64", "--workers", "2"]) == 0
    pairs = open_pairs(DataConfig(path="circles"))
    assert len(pairs) == 24 and {pair.image.size() for pair in each(pairs)} == {(64, 64)}
    drawing = fill50k.draw(5, 64)
    assert np.array_equal(pairs[5].image.read(), drawing.target) and pairs[5].caption == drawing.prompt
    circle, _, ground = drawing.prompt.removesuffix(" background").partition(" circle with ")
    assert {circle, ground} <= COLOURS.keys() and tuple(drawing.target[0, 0]) in COLOURS.values()
    assert main(["lint", "circles"]) == 0
    assert json.loads(Path("lint-circles/report.json").read_text())["findings"] == []


def test_a_set_that_was_begun_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "circles"
    assert main(["dataset", "fill50k", str(out), "--count", "8", "--size", "64"]) == 0
    (out / "target" / "3.png").unlink()
    (out / "prompt.json").unlink()
    before = (out / "target" / "2.png").stat().st_mtime_ns
    assert main(["dataset", "fill50k", str(out), "--count", "12", "--size", "64"]) == 0
    assert len(open_pairs(DataConfig(path=str(out)))) == 12
    assert (out / "target" / "2.png").stat().st_mtime_ns == before
    assert main(["dataset", "fill50k", str(out), "--count", "12", "--size", "128"]) == 2


def test_all_colours_are_different() -> None:
    assert len(COLOURS) == 139 and len(set(COLOURS.values())) > 135 and COLOURS["pale golden rod"] == (238, 232, 170)


def test_pictures_become_pairs(make_pairs: Make, tmp_path: Path) -> None:
    folder, out = make_pairs(5, hints=False), tmp_path / "out"
    arguments = ["annotate", str(folder), str(out), "--preprocessor", "canny", "--workers", "2"]
    assert main(arguments) == 0
    pairs = open_pairs(DataConfig(path=str(out)))
    assert [pair.caption for pair in each(pairs)] == [pair.caption for pair in each(open_pairs_of(folder))]
    for seed, pair in enumerate(each(pairs)):
        assert pair.hint is not None and np.array_equal(pair.hint.read()[..., 0], edges(picture(seed)))
    (out / "hints" / "002.png").unlink()
    others = {path: path.stat().st_mtime_ns for path in (out / "hints").iterdir()}
    assert main(arguments) == 0 and (out / "hints" / "002.png").is_file()
    assert all(path.stat().st_mtime_ns == time for path, time in others.items())
    assert main([*arguments, "--set", "low_threshold=7"]) == 2


def test_pictures_of_one_name_all_get_hints(tmp_path: Path) -> None:
    folder, out = tmp_path / "set", tmp_path / "out"
    save(folder / "0.png", picture(0))
    save(folder / "0.jpg", picture(1))
    rows = [{"file_name": name, "text": name} for name in ("0.png", "0.jpg", "0.jpg")]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["annotate", str(folder), str(out), "--preprocessor", "canny", "--workers", "1"]) == 0
    pairs = {pair.key: pair for pair in each(open_pairs(DataConfig(path=str(out))))}
    assert {key: pair.caption for key, pair in pairs.items()} == {"0": "0.png", "0#2": "0.jpg", "0#3": "0.jpg"}
    png, jpg = (pairs[key].image.read() for key in ("0", "0#2"))
    assert np.array_equal(png, picture(0)) and np.abs(jpg.astype(int) - picture(1)).mean() < 20


def open_pairs_of(folder: Path) -> Pairs:
    """Pictures with captions only."""
    return open_pairs(DataConfig(path=str(folder), hints="canny"))


def test_settings_of_annotate(make_pairs: Make, tmp_path: Path) -> None:
    folder, out = make_pairs(3, hints=False), tmp_path / "out"
    words = ["--set", "low_threshold=[5,90]", "high_threshold=180", "--seed", "4"]
    assert main(["annotate", str(folder), str(out), "--preprocessor", "canny", *words]) == 0
    maker = maker_of("canny", {"high_threshold": 180}, {"low_threshold": (5, 90)}, seed=4)
    for seed in range(3):
        (expected,) = maker([picture(seed)], [f"{seed:03d}"])
        assert np.array_equal(np.asarray(Image.open(out / "hints" / f"{seed:03d}.png").convert("RGB")), expected)


@pytest.mark.parametrize("resolution", [64, 200])
@pytest.mark.parametrize("preprocessor", ["canny", "luminance"])
def test_hints_made_at_another_resolution_take_the_pictures_size(
    tmp_path: Path, preprocessor: str, resolution: int
) -> None:
    image = file_picture(save(tmp_path / "set" / "0.png", picture(0)[:96]))
    job = Job(out=tmp_path / "out", preprocessor=preprocessor, resolution=resolution)
    maker = job.maker()
    assert annotate_one(job, maker, Pair(key="0", image=image, hint=None, caption=None)).problem is None
    hint = np.asarray(Image.open(tmp_path / "out" / "hints" / "0.png").convert("RGB"))
    at_resolution = resize_short_side(to_images([picture(0)[:96]]), resolution)
    expected = resize_hint(maker.run(at_resolution, maker.settings("")), (96, 128), "stretch", "auto")
    assert hint.shape == (96, 128, 3) and np.abs(hint.astype(int) - to_pixels(expected)[0]).max() <= 2
    assert preprocessor != "canny" or set(np.unique(hint)) == {0, 255}


def test_an_unreadable_picture_is_left_out(
    make_pairs: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_pairs(3, hints=False)
    (folder / "images" / "001.png").write_bytes(b"nothing")
    assert main(["annotate", str(folder), str(tmp_path / "out"), "--preprocessor", "canny"]) == 1
    assert "001.png" in capsys.readouterr().err
    assert sorted(path.stem for path in (tmp_path / "out" / "hints").iterdir()) == ["000", "002"]


def test_pictures_get_hints_whether_or_not_they_had_some(
    make_pairs: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = make_pairs(5), tmp_path / "out"
    for name in ("001", "003"):
        (folder / "hints" / f"{name}.png").unlink()
    assert main(["annotate", str(folder), str(out), "--preprocessor", "canny", "--workers", "1"]) == 0
    assert "5 of 5 pictures" in capsys.readouterr().out and len(open_pairs(DataConfig(path=str(out)))) == 5


def test_pictures_that_a_list_names_in_vain_are_left_out(
    fill50k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["annotate", str(fill50k), str(tmp_path / "out"), "--preprocessor", "canny", "--workers", "1"]
    (fill50k / "target" / "1.png").unlink()
    assert main(words) == 1
    said = capsys.readouterr()
    assert "left out: target/1: prompt.json:2 names" in said.err and "2 of 3 pictures have their hints" in said.out
    assert sorted(path.stem for path in (tmp_path / "out" / "hints" / "target").iterdir()) == ["0", "2"]
    for path in (fill50k / "target").iterdir():
        path.unlink()
    assert main(words) == 2
    assert "has no pictures. target/0: prompt.json:1 names" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--preprocessor", "cany"], "Did you mean canny"),
        (["--preprocessor", "canny", "--set", "low_treshold=3"], "Did you mean low_threshold"),
        (["--preprocessor", "canny", "--set", "low_threshold=[1,2,3]"], "two numbers"),
        (["--preprocessor", "canny", "--set", 'low_threshold=["a","b"]'], "two numbers"),
        (["--preprocessor", "canny", "--set", "low_threshold=[true,false]"], "two numbers"),
        (["--preprocessor", "canny", "--set", "low_threshold=2020-01-01"], "two numbers"),
        (["--preprocessor", "canny", "--set", "low_threshold=[0,inf]"], "no range"),
        (["--preprocessor", "canny", "--workers", "-1"], "--workers -1: expected 0 or more"),
        (["--preprocessor", "canny", "--resolution", "-1"], "--resolution -1: expected 0 or more"),
        (["--preprocessor", "depth", "--weights", "nowhere"], "depth needs"),
        (["--preprocessor", "canny", "--ray"], "pip install 'ray"),
    ],
)
def test_bad_arguments_write_nothing(
    make_pairs: Make, tmp_path: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["annotate", str(make_pairs(2, hints=False)), str(out), *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert reason in said and len(said.splitlines()) == 1 and not out.exists()


@pytest.mark.parametrize("out", [".", "images", "made/edges"])
def test_annotate_does_not_write_into_what_it_reads(
    make_pairs: Make, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_pairs(2, hints=False)
    before = sorted(folder.rglob("*"))
    assert main(["annotate", str(folder), str(folder / out), "--preprocessor", "canny"]) == 2
    assert "which is read" in capsys.readouterr().err and sorted(folder.rglob("*")) == before


def test_numbers_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["dataset", "fill50k", str(tmp_path / "x"), "--workers", "-1"],
        ["lint", str(tmp_path), "--resolution", "-1"],
        ["lint", str(tmp_path), "--sample", "-1"],
    ):
        assert main(words) == 2
        assert "-1: expected 0 or more" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"sise": 64}', pytest.param("[" * 100_000, id="deep")])
@pytest.mark.parametrize("note", ["fill50k.json", "annotate.json"])
def test_damaged_notes(
    make_pairs: Make, tmp_path: Path, note: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / note).write_text(text)
    words = {
        "fill50k.json": ["dataset", "fill50k", str(tmp_path / "out"), "--count", "2", "--size", "64"],
        "annotate.json": ["annotate", str(make_pairs(1)), str(tmp_path / "out"), "--preprocessor", "canny"],
    }
    assert main(words[note]) == 2
    said = capsys.readouterr().err.strip()
    assert f"{note} " in said and "Choose another folder" in said and len(said.splitlines()) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == [note]


def test_lint_writes_its_report_and_touches_nothing_else(
    make_pairs: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_pairs(8)
    save(folder / "hints" / "003.png", np.zeros((128, 128), np.uint8))
    (folder / "hints" / "005.png").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    out = tmp_path / "report"
    assert main(["lint", str(folder), "--out", str(out), "--preprocessor", "canny", "--base", "tiny"]) == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert (out / "quarantine.txt").read_text().split() == ["005", "003"]
    assert {finding["code"] for finding in json.loads((out / "report.json").read_text())["findings"]} >= {
        "hint missing",
        "constant hint",
    }
    assert Image.open(out / "sheet.jpg").size[0] > 500 and "constant hint" in capsys.readouterr().out
    assert main(["lint", str(folder), "--out", str(folder)]) == 2
    assert main(["lint", str(tmp_path / "nowhere")]) == 2
