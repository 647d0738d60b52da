"""AutoPreprocessor, ControlFidelity and CheckControlMap on the shipped ControlNets and on pictures of known content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.networks.union import UnionControlNet
from controlnet_kit.cn_core.preprocess.canny import CannySettings, canny
from controlnet_kit.cn_core.preprocess.fidelity.difference import STRIP
from controlnet_kit.cn_core.preprocess.learned.registry import LEARNED
from controlnet_kit.cn_core.preprocess.pose.read import write
from controlnet_kit.cn_core.preprocess.registry import PREPROCESSORS
from controlnet_kit.nodes.auto import auto_node
from controlnet_kit.nodes.check_map import CheckControlMap
from controlnet_kit.nodes.fidelity import fidelity_node
from controlnet_kit.nodes.load import Request, load
from controlnet_kit.nodes.shelf import WEIGHTS, Shelf
from controlnet_kit.nodes.tiny import ASSETS
from controlnet_kit.nodes.union import SetControlNetType
from random_models import SHAPES, control_tensors, controlnet_file, our_load, randomise_, run
from skimage import data
from torch import Tensor

AutoPreprocessor, ControlFidelity = auto_node(Shelf()), fidelity_node(Shelf())


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for weights."""
    before = folder_paths.folder_names_and_paths.get(WEIGHTS)
    folder_paths.folder_names_and_paths[WEIGHTS] = ([str(tmp_path)], set())
    yield tmp_path
    folder_paths.folder_names_and_paths.pop(WEIGHTS)
    if before:
        folder_paths.folder_names_and_paths[WEIGHTS] = before


@pytest.fixture(scope="module")
def tiny_canny() -> Any:
    return load(ASSETS / "controlnets" / "tiny_canny.safetensors", Request())


@pytest.fixture(scope="module")
def union() -> Any:
    tensors = dict(randomise_(UnionControlNet(SHAPES["tiny"].config, control_types=6), 1).state_dict())
    return our_load(controlnet_file(tensors, "some_union.safetensors"))


def photo(count: int = 1) -> Tensor:
    """count 96 128 3: squares of many colours."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.rand(count, 3, 6, 8, generator=generator) * 0.8 + 0.1
    return torch.nn.functional.interpolate(cells, scale_factor=16).movedim(1, -1)


def edges(image: Tensor) -> Tensor:
    return canny(image.movedim(-1, 1), CannySettings()).movedim(1, -1)


def auto(image: Tensor, control_net: Any, **inputs: Any) -> tuple[Tensor, str]:
    return run(
        AutoPreprocessor,
        **{"when_already_a_map": "use as is", "resolution": 0, **inputs},
        image=image,
        control_net=control_net,
    )


def fidelity(image: Tensor, hint: Tensor, **inputs: Any) -> tuple[float, str, Tensor]:
    settings = {"preprocessor": "canny", "tolerance": 2.0, "resolution": 0} | inputs
    return run(ControlFidelity, image=image, hint=hint, **settings)


def check(image: Tensor, **inputs: Any) -> tuple[Tensor, str, bool]:
    return run(CheckControlMap, **{"kind": "auto", "fix_polarity": True, "palette": "ADE20K", **inputs}, image=image)


def test_the_shipped_controlnet_gets_canny_with_the_settings_of_its_file(tiny_canny):
    hint, text = auto(photo(2), tiny_canny)
    assert torch.equal(hint, edges(photo(2)))
    assert text.startswith("Chose canny because its file says that PreprocessCanny made its training hints")
    assert "low_threshold 100, high_threshold 200" in text


def test_settings_as_json(tiny_canny):
    hint, _ = auto(photo(), tiny_canny, settings='{"low_threshold": 10, "high_threshold": 20}')
    expected = canny(photo().movedim(-1, 1), CannySettings(low_threshold=10, high_threshold=20))
    assert torch.equal(hint, expected.movedim(1, -1))
    for settings in ("low_threshold: 10", "[1]", '{"low_threshold": [1]}'):
        with pytest.raises(ControlNetKitError, match="expected JSON such as"):
            auto(photo(), tiny_canny, settings=settings)


def test_a_finished_hint_is_kept_unless_it_is_to_be_processed(tiny_canny):
    hint, text = auto(edges(photo()), tiny_canny)
    assert torch.equal(hint, edges(photo()))
    assert text.endswith("The image looks like such a hint already, and was left as it is.")
    twice, text = auto(edges(photo()), tiny_canny, when_already_a_map="process anyway")
    assert torch.equal(twice, edges(edges(photo()))) and "already" not in text


def test_the_resolution_follows_the_latent(tiny_canny):
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    assert auto(photo(), tiny_canny, latent=latent)[0].shape == (1, 64, 85, 3)
    assert auto(photo(), tiny_canny, latent=latent, resolution=48)[0].shape == (1, 48, 64, 3)
    assert auto(photo(), tiny_canny)[0].shape == (1, 96, 128, 3)


def test_a_file_without_metadata_goes_by_its_name():
    tensors = control_tensors(SHAPES["tiny"].config)
    hint, text = auto(photo(), our_load(controlnet_file(tensors, "control_v11f1e_sd15_tile.safetensors")))
    expected = PREPROCESSORS["tile"](photo().movedim(-1, 1)).movedim(1, -1)
    assert torch.equal(hint, expected)
    assert "the name control_v11f1e_sd15_tile.safetensors tells that its hints show a small or blurred picture" in text
    with pytest.raises(ControlNetKitError, match="Neither the metadata nor the name of some_net"):
        auto(photo(), our_load(controlnet_file(tensors, "some_net.safetensors")))


def test_missing_weights_are_stood_in_for_or_asked_for(no_weights):
    tensors = control_tensors(SHAPES["tiny"].config)
    _, text = auto(photo(), our_load(controlnet_file(tensors, "control_v11p_sd15_softedge.safetensors")))
    assert text.startswith("Chose softedge because") and f"not in {no_weights}" in text
    with pytest.raises(ControlNetKitError, match="controlnet-kit preprocessors fetch depth"):
        auto(photo(), our_load(controlnet_file(tensors, "control_v11f1p_sd15_depth.safetensors")))


def test_a_union_goes_by_its_type(union):
    hint, text = auto(photo(), run(SetControlNetType, control_net=union, type="lineart")[0])
    assert torch.equal(hint, edges(photo()))
    assert "its type is set to canny/lineart/anime_lineart/mlsd" in text
    with pytest.raises(ControlNetKitError, match="Put Set ControlNet Type before this node"):
        auto(photo(), union)


def test_a_picture_follows_its_own_hint_and_not_that_of_another(tiny_canny):
    score, text, picture = fidelity(photo(2), edges(photo(2)), preprocessor="auto", control_net=tiny_canny)
    assert score == 1
    assert text.splitlines()[0].startswith("edge_f1 1.000 (higher is better)")
    assert "Chose canny because its file says" in text
    assert picture.shape == (2, 96 + STRIP, 128, 3)
    other, _, _ = fidelity(photo(2), edges(photo(2)).roll((8, 8), dims=(1, 2)))
    assert other < 0.9


def test_hints_of_another_size_are_fitted_as_by_apply():
    large = torch.nn.functional.interpolate(photo().movedim(-1, 1), scale_factor=2).movedim(1, -1)
    score, _, picture = fidelity(photo(), edges(large))
    assert score > 0.98 and picture.shape == (1, 96 + STRIP, 128, 3)
    wide = torch.nn.functional.pad(edges(photo()), (0, 0, 32, 32))
    assert fidelity(photo(), wide)[0] == 1
    assert fidelity(photo(), edges(photo()), resolution=48)[0] > 0.9


def test_settings_and_tolerance_of_fidelity():
    assert fidelity(photo(), edges(photo()), settings='{"high_threshold": 255, "low_threshold": 255}')[0] < 1
    moved = edges(photo()).roll(3, dims=2)
    assert fidelity(photo(), moved, tolerance=4.0)[0] > fidelity(photo(), moved, tolerance=1.0)[0]


def test_fidelity_without_a_preprocessor_asks_for_one():
    with pytest.raises(ControlNetKitError, match="connect a `control_net`, or choose a preprocessor"):
        fidelity(photo(), photo(), preprocessor="auto")


def test_check_says_nothing_of_a_good_hint_and_turns_an_inverted_one(tiny_canny):
    good = edges(photo(2))
    assert check(good) == (pytest.approx(good), "lines: nothing wrong was found.", True)
    hint, report, ok = check(1 - good, control_net=tiny_canny)
    assert torch.equal(hint, good) and not ok
    assert report == (
        "lines:\nWARNING: It looks like black lines on white; ControlNets expect white on black. Invert it."
    )
    assert torch.equal(check(1 - good, fix_polarity=False)[0], 1 - good)
    mixed = torch.cat([good[:1], 1 - good[1:]])
    assert check(mixed)[1].endswith("Invert it. (pictures 1 of the batch, counted from 0)")


def test_check_knows_what_the_controlnet_takes(tiny_canny, union):
    assert "put a preprocessor before it" in check(photo(), control_net=tiny_canny)[1]
    assert "coloured" not in check(photo(), kind="picture")[1]
    typed = run(SetControlNetType, control_net=union, type="depth")[0]
    assert "this one has colours" in check(photo(), control_net=typed)[1]
    with pytest.raises(ControlNetKitError, match="looks like no map of any kind"):
        check(photo())


def test_check_compares_with_the_size_of_the_picture():
    latent = {"samples": torch.zeros(1, 4, 12, 12)}
    assert "is 128x96: 32 of its columns will be cut off" in check(edges(photo()), latent=latent)[1]


def test_keypoints_are_compared_where_the_preprocessor_finds_them(weights_folder: Path):
    folder_paths.folder_names_and_paths[WEIGHTS] = ([str(weights_folder)], set())
    image = torch.from_numpy(data.astronaut()).float()[None] / 255
    entry = LEARNED["openpose"]
    detector: Any = entry.open([weights_folder])
    pixels = image.movedim(-1, 1)
    keypoints = write(detector.keypoints(pixels, entry.settings()))
    hint = detector(pixels, entry.settings()).movedim(1, -1)
    score, text, _ = fidelity(image, hint, preprocessor="openpose", keypoints=keypoints)
    assert score == pytest.approx(1, abs=1e-3) and text.startswith("pose_oks")
    score, text, _ = fidelity(image, hint, preprocessor="openpose")
    assert score == pytest.approx(1, abs=1e-3) and text.startswith("pose_iou")
    assert fidelity(image.flip(2), hint, preprocessor="openpose", keypoints=keypoints)[0] < 0.5
