"""The tiny world: reproducible, and captioned in words that the text encoder knows."""

import numpy as np
import pytest
from controlnet_kit.cn_core.networks.text_encoder import split_words
from controlnet_kit.training.synth import glyphs, palette, world


@pytest.fixture(scope="module", autouse=True)
def font() -> None:
    """The compositions need the emoji font; `make test` installs it."""
    glyphs.font_path()


def test_a_seed_is_a_picture() -> None:
    for first, second in zip(world.compositions(5, 12), world.compositions(5, 12), strict=True):
        np.testing.assert_array_equal(first.image, second.image)
        assert first.caption == second.caption


def test_shapes_and_words() -> None:
    known = set(world.vocabulary())
    for composition in world.compositions(100, 60):
        assert composition.image.shape == (128, 128, 3) and composition.image.dtype == np.uint8
        assert set(np.unique(composition.silhouette)) <= {0, 255} and composition.silhouette.any()
        assert set(split_words(composition.caption)) <= known


def test_captions_alone() -> None:
    assert [world.caption(seed) for seed in range(300)] == [
        composition.caption for composition in world.compositions(0, 300)
    ]


def test_shape_captions_tell_the_colours() -> None:
    for composition in world.compositions(0, 400):
        words = composition.caption.split()
        if len(words) == 5 and words[1] in world.SHAPES:
            inside = np.median(composition.image[composition.silhouette > 0], axis=0)
            outside = np.median(composition.image[composition.silhouette == 0], axis=0)
            assert np.abs(inside - palette.RGB[words[0]]).max() <= 11
            assert np.abs(outside - palette.RGB[words[3]]).max() <= 11


def test_every_glyph_draws_something_of_its_own() -> None:
    pictures = {name: glyphs.glyph(name) for name in glyphs.NAMES}
    assert len({picture.tobytes() for picture in pictures.values()}) == len(glyphs.NAMES)
    assert min(min(picture.size) for picture in pictures.values()) > 30
