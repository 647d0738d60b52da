"""How residuals of several controls join."""

from __future__ import annotations

from math import inf

import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.modulation.stacking import join, relative_change, rms
from torch import Tensor


@pytest.fixture(params=[(2, 4, 5, 3), (2, 15, 4)], ids=["pictures", "tokens"])
def pair(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    previous, own = (torch.randn(request.param, generator=generator) for _ in range(2))
    return previous, own


def test_sum_is_the_hosts(pair):
    assert torch.equal(join(*pair, how="sum"), pair[0] + pair[1])


def test_normalized_is_no_larger_than_the_larger_one(pair):
    previous, own = pair
    joined = join(previous, own, "normalized")
    scale = max(rms(previous), rms(own)) / rms(previous + own)
    assert scale < 1
    torch.testing.assert_close(joined, (previous + own) * scale)
    assert rms(joined) == pytest.approx(max(rms(previous), rms(own)))
    assert torch.equal(join(own, own, "normalized"), own)


def test_normalized_never_scales_up(pair):
    previous, own = pair
    assert torch.equal(join(previous, -0.5 * previous, "normalized"), previous - 0.5 * previous)
    assert torch.equal(join(previous, 0 * own, "normalized"), previous)
    assert not join(previous, -previous, "normalized").any()
    assert not join(0 * previous, 0 * own, "normalized").any()


def test_max_takes_the_larger_magnitude_with_its_sign(pair):
    previous, own = pair
    joined = join(previous, own, "max")
    assert torch.equal(joined.abs(), torch.maximum(previous.abs(), own.abs()))
    assert ((joined == previous) | (joined == own)).all()


def test_mask_lets_own_win_where_it_is_one(pair):
    previous, own = pair
    shape = (1, 1, *own.shape[2:]) if own.ndim == 4 else (1, own.shape[1], 1)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)).round()
    assert torch.equal(join(previous, own, "mask", mask), torch.where(mask == 1, own, previous))
    torch.testing.assert_close(join(previous, own, "mask", 0 * mask + 0.25), 0.75 * previous + 0.25 * own)
    assert torch.equal(join(previous, own, "mask"), own)


@pytest.mark.parametrize("how", ["sum", "normalized", "max", "mask"])
def test_half_precision_stays_and_arguments_too(pair, how):
    previous, own = (300 * t.half() for t in pair)  # squares exceed float16
    before = previous.clone(), own.clone()
    joined = join(previous, own, how, torch.full((1,) * own.ndim, 0.5))
    assert joined.dtype == torch.float16 and joined.isfinite().all()
    assert torch.equal(previous, before[0]) and torch.equal(own, before[1])


def test_an_unknown_way_is_refused(pair):
    with pytest.raises(ControlNetKitError, match="sum, normalized, max or mask"):
        join(*pair, how="mean")  # pyright: ignore[reportArgumentType]


def test_measures():
    t = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert rms(t) == 2.5
    assert relative_change(t, t) == relative_change(0 * t, 0 * t) == 0
    assert relative_change(t, 0.9 * t) == pytest.approx(0.1)
    assert relative_change(0 * t, t) == inf
    assert rms(torch.full((4,), 60000.0, dtype=torch.float16)) == pytest.approx(60000, rel=1e-3)
