"""Nodes of preprocessors with networks: loaded once, pictures seen before are not made again, the host may unload."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import pytest
import torch
from controlnet_kit.cn_core.errors import HintError, WeightsError
from controlnet_kit.cn_core.preprocess.learned.detector import Detector
from controlnet_kit.cn_core.preprocess.learned.registry import LEARNED
from controlnet_kit.cn_core.preprocess.recolor import NoSettings
from controlnet_kit.cn_core.preprocess.weights import Hub, Weights
from controlnet_kit.nodes.learned import learned_nodes, node_of, pictures
from controlnet_kit.nodes.shelf import WEIGHTS, Shelf
from random_models import hint_image, run
from torch import Tensor, nn

NODES = learned_nodes(Shelf())
every = pytest.mark.parametrize("node", NODES.values(), ids=list(NODES))


@pytest.fixture(autouse=True)
def as_the_host_runs_nodes(weights_folder: Path) -> Iterator[None]:
    """With a folder of weights, and without gradients."""
    before = folder_paths.folder_names_and_paths.get(WEIGHTS)
    folder_paths.folder_names_and_paths[WEIGHTS] = ([str(weights_folder)], set())
    with torch.inference_mode():
        yield
    folder_paths.folder_names_and_paths.pop(WEIGHTS)
    if before:
        folder_paths.folder_names_and_paths[WEIGHTS] = before


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A detector that keeps the number of pictures in each call."""

    inner: Detector
    calls: list[int]

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return self.inner.modules

    def __call__(self, images: Tensor, settings: Any) -> Tensor:
        self.calls.append(len(images))
        return self.inner(images, settings)


@dataclass
class Counter:
    """A node on a shelf of its own whose loads and pictures are counted."""

    name: str = "hed"
    shelf: Shelf = field(default_factory=Shelf)
    loads: int = 0
    calls: list[int] = field(default_factory=list)

    def __call__(self, image: Tensor, **values: Any) -> Tensor:
        entry = LEARNED[self.name]
        settings = vars(entry.configured(values))
        counted = replace(entry, load=lambda paths: self.load(entry.load(paths)))
        return run(node_of(counted, self.shelf), image=image, **({"resolution": 0} | settings))[0]

    def load(self, inner: Detector) -> Counted:
        self.loads += 1
        return Counted(inner=inner, calls=self.calls)


@every
def test_forms_are_the_settings_with_the_picture_first_and_the_resolution_last(node: Any):
    entry = next(entry for entry in LEARNED.values() if entry.node_id == node.__name__)
    schema = node.GET_SCHEMA()
    assert [one.id for one in schema.inputs] == ["image", *vars(entry.settings()), "resolution"]
    assert all(one.tooltip for one in schema.inputs)


def test_detectors_with_keypoints_have_nodes_of_their_own():
    assert set(NODES) == {entry.node_id for entry in LEARNED.values() if not entry.poses}


@pytest.mark.parametrize("name", ["hed", "scribble_hed", "mlsd"])
def test_it_is_the_cores_detector_at_the_resolution(name: str, weights_folder: Path):
    image = hint_image(2, 40, 56)
    entry = LEARNED[name]
    hint = Counter(name)(image)
    assert hint.shape == image.shape and hint.is_contiguous() and hint.dtype == torch.float32
    expected = entry.open([weights_folder])(pictures(image, 0), entry.settings())
    torch.testing.assert_close(hint, expected.movedim(1, -1), atol=1e-5, rtol=1e-5)
    small = run(node_of(entry, Shelf()), image=image, **vars(entry.settings()), resolution=32)[0]
    assert small.shape == (2, 32, 45, 3)


def test_the_second_run_does_not_load_again():
    node = Counter()
    node(hint_image(seed=1))
    node(hint_image(seed=2))
    node(hint_image(seed=3), safe=True)
    assert node.loads == 1


def test_only_a_changed_picture_is_made_again():
    node, frames = Counter(), hint_image(5)
    before = node(frames)
    assert sum(node.calls) == 5
    node.calls.clear()
    edited = frames.clone()
    edited[3] = 0
    after = node(edited)
    assert node.calls == [1]
    assert torch.equal(after[[0, 1, 2, 4]], before[[0, 1, 2, 4]]) and not torch.equal(after[3], before[3])
    node(frames, safe=True)
    assert sum(node.calls) == 1 + 5


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A detector whose hints depend on the whole batch in their last step."""

    calls: list[int]
    modules: tuple[nn.Module, ...] = ()

    def __call__(self, images: Tensor, _: NoSettings) -> Tensor:
        return images

    def raw(self, images: Tensor, _: NoSettings) -> Tensor:
        self.calls.append(len(images))
        return images[:, :1]


def stretched(levels: Tensor, _: NoSettings) -> Tensor:
    return (levels / levels.max()).expand(-1, 3, -1, -1)


def test_the_last_step_is_for_all_pictures_together():
    """And the steps before it are not done again."""
    node = Counter("mlsd")
    load: Any = lambda _: Stretch(calls=node.calls)  # noqa: E731
    entry = replace(LEARNED["mlsd"], settings=NoSettings, needs=None, load=load, together=stretched)
    image = torch.tensor([0.1, 0.2, 0.4])[:, None, None, None].expand(3, 8, 8, 3)
    for expected in (image[:2] / 0.2, image / 0.4, image[:2] / 0.2):
        hint = run(node_of(entry, node.shelf), image=image[: len(expected)], resolution=0)[0]
        torch.testing.assert_close(hint, expected)
    assert sum(node.calls) == 3


def test_replaced_weights_without_a_known_hash_are_loaded_and_asked_again(tmp_path: Path):
    file = Weights(file="net.pth", size=0, sha256=None, licence="MIT", origin=Hub(repo="a/b", file="net.pth"))
    folder_paths.folder_names_and_paths[WEIGHTS] = ([str(tmp_path)], set())
    (tmp_path / "net.pth").write_bytes(b"first")
    calls, loads, shelf = list[int](), list[int](), Shelf()

    def load(paths: tuple[Path, ...]) -> Detector:
        loads.append(paths[0].stat().st_size)
        return Counted(inner=Stretch(calls=[]), calls=calls)

    node = node_of(replace(LEARNED["hed"], settings=NoSettings, weights=(file,), packages=(), load=load), shelf)
    for content in (b"first", b"again", b"another one"):
        (tmp_path / "net.pth").write_bytes(content)
        os.utime(tmp_path / "net.pth", ns=(len(loads), len(loads)))
        run(node, image=hint_image(2), resolution=0)
        run(node, image=hint_image(2), resolution=0)
    assert loads == [5, 5, 11] and sum(calls) == 6


@dataclass(frozen=True, kw_only=True)
class Cancelled(Counted):
    """A detector whose user cancels while it makes the second picture."""

    def __call__(self, images: Tensor, settings: Any) -> Tensor:
        comfy.model_management.interrupt_current_processing(len(self.calls) == 1)
        return super().__call__(images, settings)


def test_a_cancelled_batch_goes_on_where_it_stopped():
    entry, calls, frames = LEARNED["hed"], list[int](), hint_image(4)
    entry = replace(entry, load=lambda paths: Cancelled(inner=LEARNED["hed"].load(paths), calls=calls))
    node = node_of(entry, Shelf())
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(node, image=frames, safe=False, resolution=0)
    assert calls == [1, 1]
    run(node, image=frames, safe=False, resolution=0)
    assert calls == [1, 1, 1, 1]


def test_the_host_knows_the_network_and_may_unload_it():
    node = Counter()
    node(hint_image(seed=1))
    (loaded,) = node.shelf.loaded.values()
    assert any(one.model is loaded.patcher for one in comfy.model_management.current_loaded_models)
    comfy.model_management.unload_all_models()
    assert not comfy.model_management.current_loaded_models
    node(hint_image(seed=2))
    assert node.loads == 1


def test_what_does_not_fit_on_the_shelf_is_forgotten():
    node = Counter(shelf=Shelf(capacity=1))
    node(hint_image(seed=1))
    network = weakref.ref(next(iter(node.shelf.loaded.values())).detector.modules[0])
    Counter("mlsd", shelf=node.shelf)(hint_image())
    gc.collect()
    assert network() is None and [one.detector.modules for one in node.shelf.loaded.values()] == [()]
    node(hint_image(seed=2))
    assert node.loads == 2


def test_missing_weights_are_named_and_nothing_else_fails(tmp_path: Path):
    folder_paths.folder_names_and_paths[WEIGHTS] = ([str(tmp_path)], set())
    with pytest.raises(WeightsError, match=r"hed_bsds500\.weights\.h5.*fetch hed"):
        Counter()(hint_image())


def test_a_broken_picture_is_refused():
    with pytest.raises(HintError, match="NaN"):
        Counter()(torch.full((1, 8, 8, 3), float("nan")))
    with pytest.raises(HintError, match="empty"):
        Counter()(torch.zeros(0, 8, 8, 3))
