"""What lint finds, and what it must not: each fault is put into a good set, whose other pairs stay clean."""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import controlnet_kit
import numpy as np
import pytest
import skimage.data
from controlnet_kit.training.config import DataConfig, TrainConfig
from controlnet_kit.training.data import fill50k
from controlnet_kit.training.data.hints import maker_of
from controlnet_kit.training.data.lint import alignment, facts, run, sheet
from controlnet_kit.training.data.lint.report import LintReport
from controlnet_kit.training.data.lint.run import LintOptions, lint, look_over, options_of
from controlnet_kit.training.data.pairs import Listed, Pair
from controlnet_kit.training.data.pictures import Drawn, file_picture
from picture_files import edges, picture, save

RECIPES = Path(str(controlnet_kit.__file__)).parent / "training" / "recipes"
COUNT = 24
IMAGES = [picture(seed) for seed in range(COUNT)]
HINTS = [np.repeat(edges(image)[..., None], 3, axis=2) for image in IMAGES]
THOROUGH = LintOptions(sample=0, resolution=128)


def pairs(images: Sequence[np.ndarray] = IMAGES, hints: Sequence[np.ndarray] = HINTS) -> Listed:
    """A data set in memory."""
    return Listed(
        name="set",
        pairs=[
            Pair(
                key=f"{number:02d}",
                image=Drawn(name=f"{number}", pixels=image),
                hint=Drawn(name=f"{number} hint", pixels=np.ascontiguousarray(hint)),
                caption=f"caption {number}",
            )
            for number, (image, hint) in enumerate(zip(images, hints, strict=True))
        ],
    )


def changed(*rows: int, by: object) -> list[np.ndarray]:
    """The good hints, some of them changed."""
    return [by(hint) if row in rows else hint for row, hint in enumerate(HINTS)]  # pyright: ignore[reportCallIssue]


def codes(report: LintReport) -> dict[str, tuple[str, ...]]:
    """Code -> keys."""
    return {finding.code: finding.keys for finding in report.findings}


def test_a_good_set_is_clean() -> None:
    report = lint(pairs(), THOROUGH)
    assert report.findings == () and report.kind == "lines" and "clean" in report.text()


@pytest.mark.parametrize("preprocessor", ["softedge", "tile", "luminance", "lineart"])
def test_hints_of_other_kinds_are_clean(preprocessor: str) -> None:
    """On photographs, whose edges are everywhere."""
    whole = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    parts = [image[top : top + 200, left : left + 200] for image in whole for top, left in ((0, 0), (90, 200))]
    maker = maker_of(preprocessor, {}, {})
    hints = maker(parts, ["x"] * len(parts))
    assert lint(pairs(parts, hints), THOROUGH).errors == ()


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("mirrored", lambda hint: hint[:, ::-1]),
        ("upside down", lambda hint: hint[::-1]),
        ("shifted", lambda hint: np.roll(hint, 10, axis=1)),
        ("inverted", lambda hint: 255 - hint),
        ("range", lambda hint: hint // 255),
        ("constant hint", np.zeros_like),
        ("aspect", lambda hint: hint[:80]),
    ],
)
def test_one_bad_hint_is_found(code: str, change: object) -> None:
    report = lint(pairs(hints=changed(3, by=change)), THOROUGH)
    assert codes(report)[code] == ("03",) and set(report.quarantine) == {"03"}


def test_large_sets_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "MOST", 6)
    report = lint(pairs(hints=changed(1, COUNT - 1, by=lambda hint: hint[:, ::-1])), THOROUGH)
    assert report.quarantine == codes(report)["mirrored"] == ("01", f"{COUNT - 1:02d}") and len(report.errors) == 1


def test_maps_are_dropped_when_their_part_was_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = weakref.WeakSet[facts.Maps]()
    most = 0

    def watched(*words: object, **named: object) -> tuple[facts.Facts, facts.Maps | None]:
        nonlocal most
        one, maps = facts.facts_of(*words, **named)  # pyright: ignore[reportArgumentType]
        alive.update([maps] if maps else [])
        most = max(most, len(alive))
        return one, maps

    monkeypatch.setattr(alignment, "MOST", 4)
    monkeypatch.setattr(run, "BATCH", 2)
    monkeypatch.setattr(run, "facts_of", watched)
    looked = look_over(pairs(hints=changed(1, COUNT - 1, by=lambda hint: hint[:, ::-1])), THOROUGH)
    assert codes(looked.report)["mirrored"] == ("01", f"{COUNT - 1:02d}") and len(looked.facts) == COUNT
    assert 0 < most <= 4 + 4 + alignment.FEWEST + 2 and not alive
    assert all(array.nbytes < 1024 for one in looked.facts for array in vars(one).values() if hasattr(array, "nbytes"))


@pytest.mark.parametrize(("usable", "sizes"), [(9, [3, 6]), (10, [3, 3, 4]), (7, [3, 4]), (4, [4]), (3, [])])
def test_parts_of_a_set(monkeypatch: pytest.MonkeyPatch, usable: int, sizes: list[int]) -> None:
    monkeypatch.setattr(alignment, "MOST", 4)
    level = np.zeros((1, 1, 1), np.float32)
    maps = [facts.Maps(key=f"{number}", digest="", image=level, hint=level) for number in range(usable)]
    found = list(alignment.parts(iter(maps), 10))
    assert [len(part) for part in found] == sizes
    assert [one for part in found for one in part] == (maps if sizes else [])


def test_two_swapped_hints_are_found() -> None:
    hints = list(HINTS)
    hints[5], hints[8] = hints[8], hints[5]
    report = lint(pairs(hints=hints), THOROUGH)
    assert report.quarantine == ("05", "08") and "05 fits that of 08" in report.text()


@pytest.mark.parametrize(
    ("code", "change"),
    [("mirrored", lambda hint: hint[:, ::-1]), ("inverted", lambda hint: 255 - hint)],
)
def test_a_set_that_is_wrong_as_a_whole(code: str, change: object) -> None:
    report = lint(pairs(hints=changed(*range(COUNT), by=change)), THOROUGH)
    assert len(codes(report)[code]) > 0.8 * COUNT


def test_a_shuffled_set() -> None:
    report = lint(pairs(hints=[*HINTS[3:], *HINTS[:3]]), THOROUGH)
    assert len(codes(report)["shuffled"]) > 0.8 * COUNT


def test_with_the_preprocessor_known() -> None:
    maker = maker_of("tile", {}, {})
    hints = maker(IMAGES, ["x"] * COUNT)
    options = LintOptions(sample=0, resolution=128, maker=maker)
    assert lint(pairs(hints=hints), options).errors == ()
    exchanged = codes(lint(pairs(hints=[hint[..., ::-1] for hint in hints]), options))
    assert len(exchanged["channels"]) > COUNT / 2 and "unrelated" not in exchanged


def test_normals_are_not_mirrored() -> None:
    normals = maker_of("normal_from_depth", {}, {})([picture(seed) for seed in range(COUNT)], [""] * COUNT)
    plain, mirrored = (lint(pairs(hints=normals), replace(THOROUGH, flip=flip)) for flip in (False, True))
    assert plain.kind == "normal" and "mirrored" not in codes(plain)
    assert [finding.code for finding in mirrored.errors] == ["mirrored"]
    assert "mirrored" not in codes(lint(pairs(), replace(THOROUGH, flip=True)))


def test_duplicates() -> None:
    images, hints = list(IMAGES), list(HINTS)
    images[7], hints[7] = images[2], hints[2]
    brighter = np.clip(images[4].astype(int) + 2, 0, 255).astype(np.uint8)
    images[9], hints[9] = brighter, hints[4]
    found = codes(lint(pairs(images, hints), THOROUGH))
    assert found["duplicate"] == ("07",) and found["near duplicate"] == ("09",)


def test_captions() -> None:
    good = pairs()
    blank = [Pair(key=one.key, image=one.image, hint=one.hint, caption=None) for one in good.pairs[:12]]
    mixed = Listed(name="set", pairs=[*blank, *good.pairs[12:]])
    options = LintOptions(sample=0, resolution=128, words_lost=lambda caption: 3 if "13" in caption else 0)
    found = codes(lint(mixed, options))
    assert "empty captions" in found and found["long caption"] == ("13",)


def test_the_sample_is_small_and_always_the_same() -> None:
    first, second = (look_over(pairs(), LintOptions(sample=6, resolution=128)) for _ in range(2))
    assert first.report.looked_at == 6
    assert [one.pair.key for one in first.facts] == [one.pair.key for one in second.facts]


def test_unreadable_files_and_the_sheet(tmp_path: Path) -> None:
    path = save(tmp_path / "bad.png", picture(0))
    path.write_bytes(path.read_bytes()[:300])
    good = pairs().pairs
    bad = Pair(key="bad", image=file_picture(path), hint=good[0].hint, caption="x")
    looked = look_over(Listed(name="set", pairs=[*good, bad]), THOROUGH)
    assert codes(looked.report)["unreadable"] == ("bad",)
    image = sheet.contact_sheet(looked)
    pixels = np.asarray(image)
    assert image.width > 3 * 3 * sheet.CELL and pixels[:, : sheet.CELL].std() > 10
    written = json.loads(looked.report.json())
    assert written["quarantine"] == ["bad"] and written["pairs"] == COUNT + 1


def test_pictures_with_several_captions() -> None:
    """One picture as three pairs is a duplicate, and no reason to doubt hints or captions."""
    some = pairs().pairs[:6]
    several = [replace(one, key=f"{one.key}{copy}", caption=f"{one.key} {copy}") for one in some for copy in "abc"]
    report = lint(Listed(name="set", pairs=several), THOROUGH)
    assert set(codes(report)) == {"duplicate"} and report.numbers["captions"] == 18
    assert codes(report)["duplicate"] == tuple(one.key for one in several if not one.key.endswith("a"))


def test_one_caption_for_all() -> None:
    same = [replace(one, caption="a car") for one in pairs().pairs]
    (found,) = lint(Listed(name="set", pairs=same), THOROUGH).findings
    assert (found.code, found.text) == ("one caption", "All captions are 'a car'.")
    same[0] = replace(same[0], caption="")
    (found,) = lint(Listed(name="set", pairs=same), THOROUGH).findings
    assert found.text == "All captions that are not empty are 'a car'."


def test_a_run_makes_given_hints_again_where_their_preprocessor_is_known() -> None:
    config = DataConfig(path="x", condition="tile", preprocessor_params={"scale": 2.0})
    maker = options_of(config).maker
    assert maker is not None and (maker.entry.name, maker.values) == ("tile", {"scale": 2.0})
    for other in ({"condition": "my edges"}, {"condition": "hed"}, {"condition": "", "hints": "tile"}):
        assert options_of(DataConfig(path="x", **other)).maker is None  # pyright: ignore[reportArgumentType]
    drawn = DataConfig(path="x", condition="canny", randomise={"low_threshold": (10.0, 50.0)})
    assert options_of(drawn).maker is None
    exchanged = [hint[..., ::-1] for hint in maker(IMAGES, ["x"] * COUNT)]
    report = lint(pairs(hints=exchanged), options_of(config))
    assert {finding.code for finding in report.errors} == {"channels"}


@pytest.mark.parametrize("preprocessor", ["scribble", "binary", "canny"])
def test_what_the_preprocessor_itself_makes_is_right(preprocessor: str) -> None:
    """Even where its maps look inverted or shuffled to those who do not know it; blank ones are left out here."""
    hints = maker_of(preprocessor, {}, {})(IMAGES, ["x"] * COUNT)
    drawn = [row for row, hint in enumerate(hints) if hint.min() < hint.max()]
    some = pairs([IMAGES[row] for row in drawn], [hints[row] for row in drawn])
    options = options_of(DataConfig(path="x", condition=preprocessor, resolution=128))
    assert len(drawn) >= 16 and lint(some, options).errors == ()
    inverted = pairs([IMAGES[row] for row in drawn], [255 - hints[row] for row in drawn])
    assert {"inverted", "negative"} & {finding.code for finding in lint(inverted, options).errors}


def test_the_tutorials_outlines_pass_for_canny_edges() -> None:
    drawings = [fill50k.draw(number, 128) for number in range(40)]
    recipe = TrainConfig.from_toml(RECIPES / "fill50k-tiny.toml")
    outlines = pairs([one.target for one in drawings], [one.source for one in drawings])
    options = options_of(recipe.data)
    assert options.maker is not None and lint(outlines, options).findings == ()


def test_captions_that_are_not_used_are_not_checked() -> None:
    blank = Listed(name="set", pairs=[replace(one, caption="") for one in pairs().pairs])
    found = [codes(lint(blank, options_of(DataConfig(path="x", captions=used)))) for used in ("given", "default")]
    assert "empty captions" in found[0] and 'data.captions "default" fills them' in lint(blank, THOROUGH).text()
    assert "empty captions" not in found[1]


def test_sizes_are_compared_with_a_resolution_that_is_known() -> None:
    assert "enlarged" not in codes(lint(pairs(), LintOptions(sample=0)))
    assert len(codes(lint(pairs(), LintOptions(sample=0, resolution=512)))["enlarged"]) == COUNT
    assert "enlarged" in codes(lint(pairs(), options_of(DataConfig(path="x", resolution=512))))
