"""Frames: hints for latents, and strengths for each of them."""

from __future__ import annotations

import pytest
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.modulation.frames import FrameRange, frame_indices, parse_strengths, values
from controlnet_kit.cn_core.modulation.text import ScheduleError
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("available", "wanted", "mode", "indices"),
    [
        (3, 5, "cycle", (0, 1, 2, 0, 1)),
        (3, 5, "repeat_last", (0, 1, 2, 2, 2)),
        (5, 3, "cycle", (0, 1, 2)),
        (5, 3, "repeat_last", (0, 1, 2)),
        (1, 3, "cycle", (0, 0, 0)),
        (1, 3, "repeat_last", (0, 0, 0)),
    ],
)
def test_hints_for_a_batch(available, wanted, mode, indices):
    assert frame_indices(available, wanted, mode) == indices


def test_context_windows_see_the_hints_of_their_own_frames():
    assert frame_indices(16, 4, "cycle", window=[12, 13, 14, 15]) == (12, 13, 14, 15)
    assert frame_indices(16, 4, "cycle", window=[14, 15, 0, 1]) == (14, 15, 0, 1)
    assert frame_indices(14, 4, "cycle", window=[12, 13, 14, 15]) == (12, 13, 0, 1)
    assert frame_indices(14, 4, "repeat_last", window=[12, 13, 14, 15]) == (12, 13, 13, 13)


def test_what_cannot_be_assigned():
    with pytest.raises(ControlNetKitError, match="no picture"):
        frame_indices(0, 3, "cycle")
    with pytest.raises(ControlNetKitError, match="Got 3 latents for a context window of 2 frames"):
        frame_indices(5, 3, "cycle", window=[0, 1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.7", [0.7, 0.7, 0.7, 0.7, 0.7]),
        ("1.0, 0.5, 0", [1, 0.5, 0, 0, 0]),
        ("1,2,3,4,5,6,7", [1, 2, 3, 4, 5]),
        ("0:8=0.5, -1=0.2, 9=1", [0.5, 0.5, 0.5, 0.5, 0.2]),
        ("-2 = 0", [1, 1, 1, 0, 1]),
        ("1:3=0.5", [1, 0.5, 0.5, 1, 1]),
        (":2=0, -2:=-1", [0, 0, 1, -1, -1]),
        (":=0.5, 2=1", [0.5, 0.5, 1, 0.5, 0.5]),
        ("-9=0, 7=0", [1, 1, 1, 1, 1]),
    ],
)
def test_strengths(text, expected):
    assert values(parse_strengths(text), 5) == tuple(expected)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "found nothing"),
        ("1.0,, 2", 5, "found nothing"),
        ("1.0, nan", 6, 'a strength, a number from -10 to 10, but found "nan"'),
        ("1.0, 11", 6, "a strength goes from -10 to 10"),
        ("0:8=0.5, 1", 10, 'FRAME=STRENGTH, with an "=", but found "1"'),
        ("0:8=0.5, 1=", 12, "expected a strength"),
        ("1.5=1", 1, 'the number of a frame, a whole number, but found "1.5"'),
        ("=1", 1, "found nothing"),
        ("0:4:2=1", 5, 'START:STOP without a third number, but found "2"'),
        ("0:x=1", 3, 'found "x"'),
        ("1=2=3", 3, 'found "2=3"'),
        ("9999999=1", 1, "a whole number"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_column(text, column, message):
    with pytest.raises(ScheduleError) as caught:
        parse_strengths(text)
    assert caught.value.column == column
    assert message in str(caught.value) and "Write for example" in str(caught.value)


@given(st.text() | st.text("0123456789.,:= -"), st.integers(0, 20))
def test_any_text_is_read_or_refused_with_a_column(text, count):
    try:
        found = values(parse_strengths(text), count)
    except ScheduleError as error:
        assert 1 <= error.column <= len(text) + 1
    else:
        assert len(found) == count and all(-10 <= strength <= 10 for strength in found)


@given(st.integers(-8, 8), st.integers(0, 6))
def test_a_single_frame_is_a_python_index(frame, count):
    expected = [1.0] * count
    if -count <= frame < count:
        expected[frame] = 0.0
    assert values(parse_strengths(f"{frame}=0"), count) == tuple(expected)


def test_ranges_check_themselves():
    with pytest.raises(ControlNetKitError, match="-10 to 10"):
        FrameRange(start=0, stop=1, strength=float("nan"))
