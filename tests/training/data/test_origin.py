"""What made given hints: the note that `annotate` leaves, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from controlnet_kit.training.commands.annotate import main as annotate
from controlnet_kit.training.config import DataConfig
from controlnet_kit.training.data.annotate import NOTE
from controlnet_kit.training.data.origin import drawn_again, origin, recorded
from controlnet_kit.training.errors import DataError
from picture_files import picture, save


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """Two pictures and their edges, with drawn thresholds."""
    for seed, name in enumerate("ab"):
        save(tmp_path / "photos" / f"{name}.png", picture(seed))
    words = ["--preprocessor", "canny", "--set", "low_threshold=[20,40]", "--set", "high_threshold=90"]
    assert annotate([str(tmp_path / "photos"), str(tmp_path / "edges"), *words]) == 0
    return tmp_path / "edges"


def test_a_folder_of_annotate_says_how_its_hints_were_made(annotated: Path) -> None:
    known = recorded(DataConfig(path=str(annotated)))
    assert (known.condition, known.preprocessor_params) == ("canny", {"high_threshold": 90})
    assert known.randomise == {"low_threshold": (20, 40)}
    maker = origin(known)
    assert maker is not None
    assert vars(maker.settings("any")) == {"low_threshold": 30, "high_threshold": 90}


def test_what_the_settings_say_goes_first(annotated: Path) -> None:
    for said in ({"condition": "my edges"}, {"hints": "hed"}, {"format": "imagefolder"}):
        config = DataConfig(path=str(annotated), **said)  # pyright: ignore[reportArgumentType]
        assert recorded(config) == config


def test_hints_that_nobody_explains_have_no_origin(tmp_path: Path) -> None:
    assert recorded(DataConfig(path=str(tmp_path))) == DataConfig(path=str(tmp_path))
    assert origin(DataConfig(path=str(tmp_path))) is None
    assert origin(DataConfig(path=str(tmp_path), condition="my edges")) is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"preprocessor": "canny"}',
        '{"preprocessor": "cany", "values": {}, "ranges": {}}',
        '{"preprocessor": "canny", "values": {"low_threshold": [1]}, "ranges": {}}',
        '{"preprocessor": "canny", "values": {}, "ranges": {"low_threshold": [1]}}',
        '{"preprocessor": 3, "values": [], "ranges": 5}',
    ],
)
def test_a_note_that_is_none_is_refused(annotated: Path, text: str) -> None:
    (annotated / NOTE).write_text(text)
    with pytest.raises(DataError, match="does not tell how the hints were made"):
        recorded(DataConfig(path=str(annotated)))


@pytest.mark.parametrize(
    "text", ["{", '{"ranges": {"low_threshold": [20, 40]}}', '{"ranges": 5, "seed": 7}', '{"ranges": {}, "seed": 7}']
)
def test_settings_that_no_note_tells_are_the_middle(annotated: Path, text: str) -> None:
    """In the middle of a run that is no reason to stop."""
    known = recorded(DataConfig(path=str(annotated)))
    told = drawn_again(known, seed=1)
    assert told is not None and told.ranges == {"low_threshold": (20, 40)} and told.seed == 0
    (annotated / NOTE).write_text(text)
    assert drawn_again(known, seed=1) == origin(known)
