"""One score for each preprocessor: itself is perfect, another picture is worse, and the picture shows where."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.cn_core.preprocess.fidelity.difference import EXTRA, MATCH, MISSING, STRIP, difference
from controlnet_kit.cn_core.preprocess.fidelity.score import fidelity
from controlnet_kit.cn_core.preprocess.map_kinds import kind_of
from controlnet_kit.cn_core.preprocess.registry import PREPROCESSORS

NAMES = {
    **dict.fromkeys(("canny", "hed", "softedge", "mlsd", "lineart_anime", "scribble_hed", "xdog"), "edge_f1"),
    **dict.fromkeys(("depth", "depth_midas", "depth_zoe"), "depth_aligned_rmse"),
    **dict.fromkeys(("normal", "normal_from_depth"), "normal_mean_deg"),
    **dict.fromkeys(("segmentation_palette", "segmentation_oneformer"), "mask_miou"),
    **dict.fromkeys(("binary", "person_mask"), "mask_iou"),
    **dict.fromkeys(("openpose", "face_mesh"), "pose_iou"),
    **dict.fromkeys(("tile", "blur", "shuffle", "color", "unheard of"), "ssim"),
}


@pytest.mark.parametrize(("preprocessor", "name"), NAMES.items())
def test_the_measure_fits_the_map(photos, preprocessor, name):
    found = fidelity(preprocessor, photos, photos)
    assert found.name == name
    assert found.value == pytest.approx(1 if found.higher_is_better else 0, abs=1e-4)
    ControlNetMetadata(fidelity={found.name: found.value, **found.details})  # a file can say it


@pytest.mark.parametrize("preprocessor", sorted(PREPROCESSORS))
def test_a_picture_follows_its_own_hint_better_than_another(photos, preprocessor):
    hint = PREPROCESSORS[preprocessor](photos)
    own, other = fidelity(preprocessor, hint, hint), fidelity(preprocessor, hint, hint.flip(0))
    sign = 1 if own.higher_is_better else -1
    assert sign * own.value > sign * other.value
    assert replace(own, per_image=own.per_image[:1]).value == pytest.approx(own.value, abs=1e-4)


def test_one_hint_goes_for_all_pictures_and_each_has_its_score(photos):
    hint = PREPROCESSORS["canny"](photos[:1])
    found = fidelity("canny", hint, PREPROCESSORS["canny"](photos))
    assert found.per_image[0] == 1 > found.per_image[1]
    assert found.value == pytest.approx(sum(found.per_image) / 2)
    assert found.text.startswith(f"edge_f1 {found.value:.3f} (higher is better), edge_precision ")


def test_soft_maps_are_compared_where_they_are_bright(photos):
    hint = PREPROCESSORS["softedge"](photos)
    assert fidelity("softedge", hint, hint * 0.8).value > 0.8
    assert fidelity("softedge", hint, hint * 0.1).value == 0


@pytest.mark.parametrize("shape", [(3, 3, 72, 96), (2, 3, 72, 95), (2, 1, 72, 96), (3, 72, 96)])
def test_shapes_that_do_not_fit_are_named(photos, shape):
    with pytest.raises(HintError, match="they need one size"):
        fidelity("canny", torch.zeros(shape), photos)


def bars() -> tuple[torch.Tensor, torch.Tensor]:
    """A hint with lines in columns 20 and 60, and what came of it: in 21 and 90; 1 3 32 120."""
    hint, redone = torch.zeros(2, 1, 3, 32, 120)
    hint[..., [20, 60]] = 1
    redone[..., [21, 90]] = 1
    return hint, redone


def test_the_difference_has_matches_in_white_misses_in_red_and_extra_lines_in_blue():
    picture = difference("canny", *bars())
    assert picture.shape == (1, 3, 32 + STRIP, 120)
    for column, colour in ((20, MATCH), (21, MATCH), (60, MISSING), (90, EXTRA), (40, (0, 0, 0))):
        assert picture[0, :, 10, column].tolist() == pytest.approx(colour)


@pytest.mark.parametrize("preprocessor", ["depth", "normal", "tile"])
def test_heat_maps_are_black_where_nothing_differs(photos, preprocessor):
    changed = photos.clone()
    changed[..., 48:] = 1 - changed[..., 48:]
    same = difference(preprocessor, photos, photos)
    assert same.shape == (2, 3, 72 + STRIP, 96)
    assert same[..., :72, :].max() < 0.05
    assert difference(preprocessor, photos, changed)[..., :72, 48:].mean() > 0.1


def test_the_table_knows_every_preprocessor():
    assert {kind_of(name) for name in PREPROCESSORS} == {
        *("lines", "soft lines", "depth", "normal", "segmentation", "mask", "picture")
    }
    assert kind_of("dwpose") == "pose"
