"""T2I-Adapters against those of diffusers, whose files are read here; and their sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from controlnet_kit.cn_core.files.checkpoint import load_strictly
from controlnet_kit.cn_core.files.t2i_adapter import detect_t2i_adapter
from controlnet_kit.cn_core.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig
from random_adapters import NARROW, adapter_tensors

DIFFUSERS = {"full": "full_adapter", "one channel": "full_adapter", "light": "light_adapter", "XL": "full_adapter_xl"}


def hint(config, height, width, batch=1):
    return torch.rand(batch, config.hint_channels, height, width, generator=torch.Generator().manual_seed(batch))


def adapter(config) -> T2IAdapter:
    network = T2IAdapter(config)
    load_strictly(network, adapter_tensors(config), name="random")
    return network


@pytest.mark.parametrize("name", DIFFUSERS)
def test_features_and_files_are_those_of_diffusers(name, randomise, assert_same):
    from diffusers.models.adapter import T2IAdapter as Theirs

    config = NARROW[name]
    # their light adapter repeats the last width itself
    channels = list(config.channels[:3] if config.kind == "light" else config.channels)
    theirs = randomise(Theirs(config.hint_channels, channels, config.blocks, config.unshuffle, DIFFUSERS[name]))
    detected = detect_t2i_adapter(theirs.state_dict())
    assert detected is not None and detected.config == config
    ours = T2IAdapter(config)
    load_strictly(ours, detected.tensors, name=name)
    given = hint(config, 128, 64, batch=2)
    with torch.no_grad():
        assert_same(ours(given), theirs(given))


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize(("height", "width"), [(17, 15), (8, 9), (1, 2), (65, 63)])
def test_features_have_the_sizes_of_the_unets_levels(name, height, width):
    """A 3x3 convolution of stride 2 rounds up, and so do the averages."""
    config = NARROW[name]
    fold = config.unshuffle // 8
    folded = (-(-height // fold), -(-width // fold))
    with torch.no_grad():
        features = adapter(config)(hint(config, folded[0] * config.unshuffle, folded[1] * config.unshuffle))
    sizes, size = [], folded
    for level in range(4):
        if config.halves(level):
            size = tuple((side + 1) // 2 for side in size)
        sizes.append(size)
    assert [tuple(f.shape) for f in features] == [(1, c, *s) for c, s in zip(config.channels, sizes, strict=True)]


@pytest.mark.parametrize("name", ["full", "light", "XL"])
def test_rows_do_not_depend_on_each_other(name, assert_same):
    network, given = adapter(NARROW[name]), hint(NARROW[name], 96, 64, batch=3)
    with torch.no_grad():
        rows = [network(row[None]) for row in given]
        assert_same(network(given), [torch.cat(level) for level in zip(*rows, strict=True)])


@pytest.mark.parametrize("change", [{"channels": (32, 64)}, {"hint_channels": 2}, {"blocks": 0}])
def test_configurations_that_no_adapter_has(change):
    with pytest.raises(ValueError, match="four levels of one residual block or more, and hints of 1 or 3 channels"):
        replace(T2IAdapterConfig(), **change)
