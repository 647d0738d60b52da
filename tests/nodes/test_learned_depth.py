"""The Depth node with a small network: one range for a batch, and nothing is computed twice for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from controlnet_kit.cn_core.preprocess.learned.registry import LEARNED
from controlnet_kit.nodes.learned import node_of
from controlnet_kit.nodes.shelf import WEIGHTS, Shelf
from random_models import hint_image, run
from small_networks import livelier, small_depth_anything
from torch import Tensor

ENTRY = LEARNED["depth"]


@pytest.fixture(autouse=True)
def as_the_host_runs_nodes(tmp_path: Path) -> Iterator[None]:
    """With a folder that has the default network, and without gradients."""
    torch.manual_seed(4)
    network: Any = livelier(small_depth_anything())
    network.save_pretrained(tmp_path / Path(ENTRY.files()[0].file).parent)
    before = folder_paths.folder_names_and_paths.get(WEIGHTS)
    folder_paths.folder_names_and_paths[WEIGHTS] = ([str(tmp_path)], set())
    with torch.inference_mode():
        yield
    folder_paths.folder_names_and_paths.pop(WEIGHTS)
    if before:
        folder_paths.folder_names_and_paths[WEIGHTS] = before


def spans(maps: Tensor) -> Tensor:
    return maps.amax((1, 2, 3)) - maps.amin((1, 2, 3))


def test_a_batch_has_one_range_and_keeps_what_it_saw() -> None:
    shelf = Shelf()
    values = {"model": "v2 small", "short_side": 56, "resolution": 0}
    image = hint_image(3)
    image[1] = 0.5 + 0.02 * image[1]

    def maps(normalise: str, pictures: Tensor) -> Tensor:
        return run(node_of(ENTRY, shelf), image=pictures, normalise=normalise, **values)[0]

    torch.testing.assert_close(spans(maps("frame", image)), torch.ones(3))
    together = maps("batch", image)
    assert together.shape == image.shape and together.min() == 0 and together.max() == 1 and spans(together).min() < 1
    kept = len(shelf.hints.hints)
    edited = image.clone()
    edited[2] = image[0]  # which was seen: nothing is new but the range
    assert maps("batch", edited).shape == image.shape and len(shelf.hints.hints) == kept
