"""What preprocessors of two pictures, of masks and of geometry keep, whatever they are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError, HintError
from controlnet_kit.cn_core.preprocess.color_fix import ColorFixSettings, color_fix
from controlnet_kit.cn_core.preprocess.flow import FlowSettings, flow_hint
from controlnet_kit.cn_core.preprocess.geometry import (
    GeometryDepthSettings,
    GeometryNormalSettings,
    depth_hint,
    normal_hint,
    normals_of,
    points_of,
)
from controlnet_kit.cn_core.preprocess.inpaint import InpaintSettings, OutpaintSettings, inpaint_hint, outpaint
from controlnet_kit.cn_core.preprocess.settings import Settings
from controlnet_kit.cn_core.preprocess.stereo import StereoSettings, stereo_depth
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

Pair = Callable[[Tensor, Tensor, Any], Tensor]
PAIRS: dict[str, tuple[type[Settings], Pair]] = {
    "inpaint": (InpaintSettings, lambda one, two, chosen: inpaint_hint(one, two[:, :1], chosen)),
    "outpaint": (OutpaintSettings, lambda one, _, chosen: outpaint(one, chosen)[0]),
    "color_fix": (ColorFixSettings, color_fix),
    "stereo_depth": (StereoSettings, lambda one, two, chosen: stereo_depth(one, two, chosen)[0]),
    "optical_flow": (FlowSettings, flow_hint),
}
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
every = pytest.mark.parametrize("name", PAIRS)
few = settings(max_examples=15, deadline=None, derandomize=True)


@st.composite
def chosen_settings(draw: st.DrawFn, kind: type[Settings]) -> Any:
    """Any that are allowed; the room of outpainting is kept small."""
    values: dict[str, Any] = {}
    for one in fields(kind):
        limits = one.metadata
        if "choices" in limits:
            values[one.name] = draw(st.sampled_from(limits["choices"]))
        elif isinstance(limits["min"], int):
            values[one.name] = draw(st.integers(limits["min"], min(limits["max"], 100)))
        else:
            values[one.name] = draw(st.floats(limits["min"], limits["max"]))
    return kind(**values)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Two batches of one size and type: noise, blank, and what lies outside of [0, 1], mixed in a batch."""
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    dtype, counts = draw(st.sampled_from(DTYPES)), draw(st.sampled_from([(1, 1), (1, 3), (3, 1), (2, 2)]))
    noise = [torch.rand(count, 3, *size, generator=generator) for count in counts]
    for one in noise:
        one[0] = draw(st.sampled_from([one[0], one[0] * 3 - 1, torch.full_like(one[0], 0.5), (one[0] > 0.9).float()]))
    return noise[0].to(dtype), noise[1].to(dtype)


@every
@few
@given(data=st.data())
def test_whatever_is_allowed_gives_a_hint(name: str, data: st.DataObject):
    kind, make = PAIRS[name]
    (one, two), chosen = data.draw(pictures()), data.draw(chosen_settings(kind))
    before = one.clone(), two.clone()
    hint = make(one, two, chosen)
    assert len(hint) == (len(one) if name == "outpaint" else max(len(one), len(two)))
    assert hint.shape[1] == 3 and hint.dtype == one.dtype and hint.isfinite().all()
    if name not in ("inpaint", "outpaint"):
        assert hint.shape[2:] == one.shape[2:] and hint.amin() >= 0 and hint.amax() <= 1
    assert torch.equal(make(one, two, chosen), hint)
    assert torch.equal(one, before[0]) and torch.equal(two, before[1])


@every
def test_memory_layout_does_not_matter(name: str, photos: Tensor):
    kind, make = PAIRS[name]
    hint = make(photos[:1], photos[1:], kind())
    strided = torch.rand(2, 3, 144, 192)
    strided[:, :, ::2, ::2] = photos
    for other in (photos.contiguous(memory_format=torch.channels_last), strided[:, :, ::2, ::2]):
        assert torch.equal(make(other[:1], other[1:], kind()), hint)


@every
def test_broken_pictures_are_refused(name: str, photos: Tensor):
    kind, make = PAIRS[name]
    good = photos[:1]
    for value in (math.nan, math.inf):
        broken = good.clone()
        broken[0, 0, 3, 4] = value
        for pair in ((broken, good), (good, broken))[: 1 if name == "outpaint" else 2]:
            with pytest.raises(ControlNetKitError, match="NaN or infinite"):
                make(*pair, kind())
    for wrong in (good[:0], good[:, :, :0], good[0], (good * 255).byte()):
        with pytest.raises(HintError):
            make(wrong, good, kind())
    with pytest.raises(HintError, match="16384x16384 = 268435456 pixels"):
        make(torch.zeros(1).expand(1, 3, 16384, 16384), torch.zeros(1).expand(1, 3, 16384, 16384), kind())


@few
@given(data=st.data())
def test_geometry_of_any_values_gives_hints(data: st.DataObject):
    """Distances that are 0, negative, infinite or NaN are as good as masked."""
    height, width = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 24))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    distance = torch.rand(2, height, width, generator=generator) * 10.0 ** data.draw(st.integers(-6, 6)) + 1e-6
    worst = data.draw(st.sampled_from([math.inf, math.nan, 0.0, -1.0]))
    valid = torch.rand(2, height, width, generator=generator) > 0.3
    valid[0, 0, 0] = True
    broken = torch.where(valid, distance, worst)
    chosen = data.draw(chosen_settings(GeometryDepthSettings))
    hint = depth_hint(broken, torch.ones_like(valid), chosen)
    assert hint.shape == (2, 3, height, width) and hint.amin() >= 0 and hint.amax() <= 1
    assert torch.equal(hint, depth_hint(distance, valid, chosen))
    intrinsics = torch.tensor([[1.0, 0, width / 2], [0, 1, height / 2], [0, 0, 1]]).expand(2, 3, 3)
    normals = normal_hint(normals_of(points_of(broken, intrinsics)), data.draw(chosen_settings(GeometryNormalSettings)))
    assert normals.shape == hint.shape and normals.isfinite().all()
    assert normals.amin() >= -1e-6 and normals.amax() <= 1 + 1e-6
