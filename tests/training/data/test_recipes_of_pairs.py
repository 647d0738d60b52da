"""What becomes of a pair: shapes, cuts, hints that are made, captions."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.training.config import DataConfig
from controlnet_kit.training.data import augment, buckets
from controlnet_kit.training.data.hints import hint_maker, maker_of
from controlnet_kit.training.errors import DataError
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import edges, picture


@given(st.integers(4, 24).map(lambda n: 64 * n))
@settings(max_examples=20, deadline=None)
def test_shapes_fit_the_area(resolution: int) -> None:
    for height, width in buckets.shapes(resolution, 64, aspects=True):
        assert height % 64 == width % 64 == 0 and max(height, width) <= buckets.LONGEST * min(height, width)
        assert 0.7 * resolution**2 < height * width <= resolution**2


def test_sdxl_gets_its_shapes() -> None:
    shapes = buckets.shapes(1024, 64, aspects=True)
    assert {(1024, 1024), (832, 1216), (1216, 832), (768, 1344), (896, 1152)} <= set(shapes)
    assert buckets.nearest((1000, 1500), shapes) == (832, 1216)
    with pytest.raises(DataError, match="multiples of 64"):
        buckets.shapes(500, 64, aspects=False)


sides = st.integers(8, 300)


@given(st.tuples(sides, sides), st.sampled_from([(64, 64), (64, 128), (128, 64)]), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_cut_is_inside_and_fills_the_shape(
    original: tuple[int, int], size: tuple[int, int], flip: bool, random: bool
) -> None:
    placed = augment.place(original, size, flip=flip, random_key="a" if random else None)
    assert placed.top >= 0 and placed.top + placed.height <= original[0]
    assert placed.left >= 0 and placed.left + placed.width <= original[1]
    assert placed.height == original[0] or placed.width == original[1]
    image = np.zeros((*original, 3), np.uint8)
    assert augment.cut_image(image, placed).shape == augment.cut_hint(image, placed).shape == (*size, 3)


@pytest.mark.parametrize("scale", [1, 2])
def test_picture_and_hint_are_cut_in_the_same_place(scale: int) -> None:
    image = picture(3)
    placed = augment.place((128, 128), (64, 128), flip=True, random_key="somewhere")
    hint = image.repeat(scale, axis=0).repeat(scale, axis=1)
    difference = augment.cut_image(image, placed).astype(int) - augment.cut_hint(hint, placed)
    assert np.abs(difference).mean() < 3


def test_numbers_for_sdxl_are_those_of_the_resized_picture() -> None:
    placed = augment.place((200, 400), (100, 100))
    assert placed.numbers() == (200, 400, 0, 50, 100, 100)


def test_hints_are_those_of_the_preprocessor() -> None:
    image = picture(1)
    same, other = maker_of("canny", {}, {}), maker_of("canny", {"low_threshold": 5, "high_threshold": 20}, {})
    assert np.array_equal(same([image], ["a"])[0][..., 0], edges(image))
    assert not np.array_equal(other([image], ["a"])[0][..., 0], edges(image))


def test_settings_are_drawn_from_the_key_alone() -> None:
    first, second = (maker_of("canny", {}, {"low_threshold": (10, 90)}, seed=seed) for seed in (0, 1))
    drawn = {key: first.drawn(key)["low_threshold"] for key in "abcdefgh"}
    assert drawn == {key: first.drawn(key)["low_threshold"] for key in "hgfedcba"}
    assert (
        all(isinstance(value, int) and 10 <= value <= 90 for value in drawn.values()) and len(set(drawn.values())) > 4
    )
    assert drawn != {key: second.drawn(key)["low_threshold"] for key in drawn}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hints": "cany"}, "Did you mean canny"),
        ({"hints": "canny", "preprocessor_params": {"lo": 1}}, "no setting lo"),
        ({"hints": "canny", "preprocessor_params": {"low_threshold": 999}}, "from 0 to 255"),
        ({"hints": "canny", "randomise": {"low_threshold": (90.0, 10.0)}}, "no range"),
        ({"hints": "canny", "randomise": {"low_threshold": (0.0, 999.0)}}, "from 0 to 255"),
        ({"hints": "canny", "randomise": {"lo": (0.0, 1.0)}}, "low_threshold, high_threshold"),
        ({"randomise": {"low_threshold": (0.0, 1.0)}}, "name the preprocessor in data.condition"),
        ({"condition": "canny", "randomise": {"lo": (0.0, 1.0)}}, "low_threshold, high_threshold"),
    ],
)
def test_bad_preprocessors(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ControlNetKitError, match=reason):
        hint_maker(DataConfig(path="x", **changes))  # pyright: ignore[reportArgumentType]


def test_every_setting_of_the_data_has_help() -> None:
    assert all(one.metadata["help"] for one in fields(DataConfig))
