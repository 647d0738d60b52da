"""Residuals are values: every function hands back new ones and leaves its arguments alone."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch
from controlnet_kit.cn_core.modulation.residuals import Residuals, add, cast, pool_globally, scale


@pytest.fixture
def residuals() -> Residuals:
    """Two skips and a middle."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 8, 6), (2, 8, 4, 3), (2, 8, 2, 2)]
    *down, mid = (torch.randn(shape, generator=generator) for shape in shapes)
    return Residuals(down=tuple(down), mid=mid)


def flat(residuals: Residuals) -> list[torch.Tensor]:
    """Down and middle in one list."""
    return [*residuals.down, residuals.mid]


def assert_equal(found: Residuals, expected: list[torch.Tensor]) -> None:
    """Bit for bit."""
    assert all(torch.equal(a, b) for a, b in zip(flat(found), expected, strict=True))


def test_scale(residuals):
    assert scale(residuals, 1.0) is residuals
    assert_equal(scale(residuals, 0.3), [r * 0.3 for r in flat(residuals)])
    assert_equal(scale(residuals, 0), [torch.zeros_like(r) for r in flat(residuals)])


def test_add_in_either_order(residuals):
    other = scale(residuals, 2.5)
    assert_equal(add(residuals, other), [a + b for a, b in zip(flat(residuals), flat(other), strict=True)])
    assert_equal(add(other, residuals), flat(add(residuals, other)))


def test_residuals_of_different_networks_do_not_add(residuals):
    with pytest.raises(ValueError, match=r"residuals of 2 and 1 skips"):
        add(residuals, Residuals(down=residuals.down[:1], mid=residuals.mid))


def test_cast(residuals):
    assert {r.dtype for r in flat(cast(residuals, torch.bfloat16))} == {torch.bfloat16}
    assert_equal(cast(residuals, torch.float32), flat(residuals))


def test_global_pooling_keeps_shape_and_mean_and_drops_layout(residuals):
    for before, after in zip(flat(residuals), flat(pool_globally(residuals)), strict=True):
        assert after.shape == before.shape
        assert torch.equal(after, after[:, :, :1, :1].expand_as(after))
        torch.testing.assert_close(after[:, :, 0, 0], before.mean(dim=(2, 3)))


def test_arguments_are_left_alone(residuals):
    before = [r.clone() for r in flat(residuals)]
    for function in (lambda r: scale(r, 0.5), lambda r: add(r, r), pool_globally):
        function(residuals)
    assert_equal(residuals, before)
    with pytest.raises(FrozenInstanceError):
        residuals.mid = None
