"""What every preprocessor of the table keeps, whatever it draws; also what others' preprocessors got wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import Field, fields
from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError, HintError
from controlnet_kit.cn_core.preprocess.preprocessor import Preprocessor
from controlnet_kit.cn_core.preprocess.registry import ALL, PREPROCESSORS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

ENTRIES = list(PREPROCESSORS.values())
RAW = {"depth_remap"}
"""These take values of any range."""
PER_BATCH = {"depth_remap"}
"""These look at the whole batch by default."""
every = pytest.mark.parametrize("entry", ENTRIES, ids=list(PREPROCESSORS))


def test_the_table_is_sorted_and_names_are_for_good():
    assert list(PREPROCESSORS) == sorted(entry.name for entry in ALL)
    assert len({entry.node_id for entry in ENTRIES}) == len({entry.title for entry in ENTRIES}) == len(ALL) == 23
    assert all(entry.node_id.startswith("Preprocess") and entry.description for entry in ENTRIES)


def test_importing_the_table_does_not_import_opencv():
    code = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("controlnet_kit", sys.argv[1] + "/__init__.py",
                                              submodule_search_locations=[sys.argv[1]])
sys.modules["controlnet_kit"] = importlib.util.module_from_spec(spec)
import controlnet_kit.cn_core.preprocess.registry
sys.exit(bool({"cv2", "scipy", "skimage", "comfy"} & sys.modules.keys()))
"""
    root = str(next(iter(sys.modules["controlnet_kit"].__path__)))
    assert subprocess.run([sys.executable, "-c", code, root]).returncode == 0


@every
def test_every_field_has_what_a_form_needs(entry: Preprocessor[Any]):
    for one in fields(entry.settings):
        assert one.metadata["tooltip"].endswith(".")
        if "min" in one.metadata:
            kind = type(one.metadata["min"])
            assert all(type(value) is kind for value in (one.default, one.metadata["max"], one.metadata["step"]))
            assert one.metadata["min"] <= one.default <= one.metadata["max"]
        elif "choices" in one.metadata:
            assert one.default in one.metadata["choices"]
        else:
            assert isinstance(one.default, bool)


@every
def test_shape_range_and_determinism(entry: Preprocessor[Any], photos: Tensor):
    before = photos.clone()
    hints = entry(photos)
    assert hints.shape == photos.shape and hints.dtype == photos.dtype
    assert hints.isfinite().all() and hints.amin() >= 0 and hints.amax() <= 1
    assert hints.std() > 0.01, "an empty hint"
    assert torch.equal(entry(photos), hints)
    assert torch.equal(photos, before)


@every
def test_a_batch_is_its_pictures(entry: Preprocessor[Any], photos: Tensor):
    many = photos.repeat(3, 1, 1, 1)
    single = {"normalise": "frame"} if entry.name in PER_BATCH else {}
    chosen = entry.configured(single)
    assert torch.equal(entry(many, chosen), torch.cat([entry(photo, chosen) for photo in many.split(1)]))


@every
def test_memory_layout_does_not_matter(entry: Preprocessor[Any], photos: Tensor):
    hints = entry(photos)
    channels_last = photos.contiguous(memory_format=torch.channels_last)
    strided = torch.rand(2, 3, 144, 192)
    strided[:, :, ::2, ::2] = photos
    for other in (channels_last, strided[:, :, ::2, ::2], photos.flip(3).flip(3), photos.mT.contiguous().mT):
        assert torch.equal(entry(other), hints)
    one = photos[:1].expand(4, -1, -1, -1)  # of stride 0
    assert torch.equal(entry(one)[3], entry(photos[:1])[0])


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(entry: Preprocessor[Any], photos: Tensor, dtype: torch.dtype):
    hints = entry(photos.to(dtype))
    assert hints.dtype == dtype and hints.isfinite().all()
    near = (hints.float() - entry(photos.to(dtype).float())).abs().mean()
    assert near < (0.02 if dtype == torch.bfloat16 else 0.005)


@every
def test_values_out_of_range_are_clamped_not_wrapped(entry: Preprocessor[Any], photos: Tensor):
    """controlnet_aux turns 1.02 into 4 / 255 and -0.02 into 251 / 255."""
    wide = photos * 1.04 - 0.02
    if entry.name not in RAW:
        assert torch.equal(entry(wide), entry(wide.clamp(0, 1)))
    assert torch.equal(wide, photos * 1.04 - 0.02)


@every
def test_broken_pictures_are_refused(entry: Preprocessor[Any], photos: Tensor):
    for value in (float("nan"), float("inf")):
        broken = photos.clone()
        broken[1, 2, 5, 7] = value
        with pytest.raises(ControlNetKitError, match="NaN or infinite"):
            entry(broken)
    for empty in (photos[:0], photos[:, :, :0], photos[..., :0]):
        for resolution in (0, 64):
            with pytest.raises(HintError, match="empty"):
                entry(empty, resolution=resolution)
    for wrong in (photos[:, :1], photos[0], photos.repeat(1, 2, 1, 1), (photos * 255).byte()):
        with pytest.raises(HintError, match="batch, 3, height, width"):
            entry(wrong)


@every
@pytest.mark.parametrize("size", [(1, 1), (20, 20), (300, 10), (2, 700)])
def test_sizes_at_which_others_fail_or_stretch(entry: Preprocessor[Any], size: tuple[int, int]):
    picture = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(9))
    hint = entry(picture)
    assert hint.shape == picture.shape and hint.isfinite().all()


@every
def test_resolution_is_the_short_side_of_hint_and_picture(entry: Preprocessor[Any], photos: Tensor):
    hint = entry(photos, resolution=40)
    assert hint.shape == (2, 3, 40, 53)


@every
def test_huge_pictures_are_refused_before_any_memory_is_spent(entry: Preprocessor[Any]):
    with pytest.raises(HintError, match="16384x16384 = 268435456 pixels"):
        entry(torch.zeros(1).expand(1, 3, 16384, 16384))
    with pytest.raises(HintError, match="Set a resolution of at most"):
        entry(torch.rand(1, 3, 100, 3000), resolution=16384)


@every
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_blank_pictures(entry: Preprocessor[Any], level: float):
    assert entry(torch.full((1, 3, 48, 64), level)).isfinite().all()


def candidates(one: Field[Any]) -> list[Any]:
    """Values of a field other than its default."""
    if "choices" in one.metadata:
        values = list(one.metadata["choices"])
    elif "min" in one.metadata:
        low, high = one.metadata["min"], one.metadata["max"]
        kind: Any = type(low)
        default: Any = one.default
        values = [low, kind((low + default) / 2), kind(default * 2), kind((default + high) / 2), high]
        values = [min(max(value, low), high) for value in values]
    else:
        values = [True, False]
    return [value for value in values if value != one.default]


@every
def test_every_setting_does_something(entry: Preprocessor[Any], photos: Tensor):
    """Several of aux's parameters do nothing."""
    pictures = photos[:1].repeat(2, 1, 1, 1) if entry.name == "shuffle" else photos
    usual = entry(pictures)
    for one in fields(entry.settings):
        tried = []
        for value in candidates(one):
            if entry.name == "depth_remap" and one.name in ("near", "far") and value in (0.0, 1.0):
                continue  # equal to the other one
            tried.append(torch.equal(entry(pictures, entry.configured({one.name: value})), usual))
        assert tried and not all(tried), one.name


@every
def test_settings_from_plain_values(entry: Preprocessor[Any]):
    assert entry.configured({}) == entry.settings()
    assert entry.configured(vars(entry.settings())) == entry.settings()
    with pytest.raises(ControlNetKitError, match=f"{entry.name} has no setting guassian_sigma"):
        entry.configured({"guassian_sigma": 1})


def values(one: Field[Any]) -> st.SearchStrategy[Any]:
    """What a field allows."""
    if "choices" in one.metadata:
        return st.sampled_from(one.metadata["choices"])
    if "min" not in one.metadata:
        return st.booleans()
    low, high = one.metadata["min"], one.metadata["max"]
    return st.integers(low, high) if isinstance(low, int) else st.floats(low, high)


@st.composite
def calls(draw: st.DrawFn) -> tuple[Preprocessor[Any], dict[str, Any], Tensor]:
    """A preprocessor, settings and pictures of any small size and type: noise, blank, gradients, two colours, mixed."""
    entry = draw(st.sampled_from(ENTRIES))
    chosen = {one.name: draw(values(one)) for one in fields(entry.settings)}
    if abs(chosen.get("near", 1) - chosen.get("far", 0)) < 0.001:
        chosen |= {"near": 1.0, "far": 0.0}
    shape = (draw(st.integers(1, 3)), 3, draw(st.integers(1, 70)), draw(st.integers(1, 70)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    noise = torch.rand(shape, generator=generator)
    kinds = {
        "noise": noise * 3 - 1,
        "blank": noise[:1, :1, :1, :1].expand(shape),
        "gradient": noise.sort(dim=3).values,
        "two colours": (noise > 0.9).float(),
        "mixed": torch.cat([noise[:1], torch.full_like(noise[1:], 0.7)]),
    }
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]))
    return entry, chosen, kinds[draw(st.sampled_from(sorted(kinds)))].to(dtype)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(call=calls())
def test_whatever_is_allowed_gives_a_hint(call: tuple[Preprocessor[Any], dict[str, Any], Tensor]):
    entry, chosen, pictures = call
    before = pictures.clone()
    hints = entry(pictures, entry.configured(chosen))
    assert hints.shape == pictures.shape and hints.dtype == pictures.dtype
    assert hints.isfinite().all() and hints.amin() >= 0 and hints.amax() <= 1
    assert torch.equal(entry(pictures, entry.configured(chosen)), hints)
    assert torch.equal(pictures, before)
