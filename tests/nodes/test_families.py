"""Every family of ControlNets that the host knows, through our nodes: as the host has it, and with every option.

Shapes: B latents, H W latent, L tokens, D width. One evaluation has R = chunks * B rows.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from math import ceil
from typing import Any

import pytest
import torch
from controlnet_kit.nodes.modulation import ControlNetWeights
from controlnet_kit.nodes.schedule import ControlNetSchedule
from host_family import Family, assert_equal, flat
from random_families import FAMILIES
from random_models import hint_image, run
from torch import Tensor, nn


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]()


@pytest.fixture(scope="module", params=["Flux XLabs", "Flux MistoLine"])
def pixels(request: pytest.FixtureRequest) -> Family:
    """The host fails at odd sizes."""
    return FAMILIES[request.param]()


def ratios(changed: list[Tensor], plain: list[Tensor]) -> list[float]:
    """By what each residual was multiplied; all its numbers by the same."""
    found: list[float] = []
    for a, b in zip(changed, plain, strict=True):
        found.append(float((a * b).sum() / (b * b).sum()))
        torch.testing.assert_close(a, found[-1] * b, atol=1e-5, rtol=1e-4)
    return found


def weights(**inputs: Any) -> Any:
    """The options node."""
    neutral = dict.fromkeys(("composition", "structure", "detail", "positive", "negative"), 1.0)
    return run(ControlNetWeights, **(neutral | {"layers": ""} | inputs))[0]


def maps(residual: Tensor, family: Family, size: tuple[int, int]) -> Tensor:
    """R C H W, or a transformer's R L D as R D and its grid of tokens."""
    if family.grid == 1:
        return residual
    return residual.unflatten(1, [ceil(side / family.grid) for side in size]).movedim(-1, 1)


@contextmanager
def called(control: Any) -> Generator[list[int]]:
    """How many rows the host's network gets in each call."""
    rows: list[int] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        rows.append(len(named["x"] if "x" in named else inputs[0]))

    handle = (control.source.network or nn.Module()).register_forward_pre_hook(note, with_kwargs=True)
    yield rows
    handle.remove()


@pytest.mark.parametrize(("batch", "hints", "strength"), [(1, 1, 1.0), (2, 1, 0.5), (2, 2, 2.0)])
def test_the_default_is_the_hosts_own_node(family, batch, hints, strength):
    size, image = family.small if batch == 1 else family.size, hint_image(hints)
    ours = family.asked(family.controlled(image, strength), batch=batch, size=size)
    assert_equal(ours, family.asked(family.host_controlled(image, strength), batch=batch, size=size))


def test_a_run(family):
    image, size = hint_image(), family.size
    ours = family.sampled(family.controlled(image), size=size)
    assert torch.equal(ours, family.sampled(family.host_controlled(image), size=size))
    assert not torch.equal(ours, family.sampled(family.base.prompts, size=size))


def test_chains_in_both_orders(family):
    images, size = (hint_image(seed=30), hint_image(seed=31)), family.size
    apply, host = family.controlled, family.host_controlled
    expected = family.asked(host(images[1], 0.5, after=host(images[0])), size=size)
    assert_equal(family.asked(apply(images[1], 0.5, after=host(images[0])), size=size), expected)
    assert_equal(family.asked(host(images[1], 0.5, after=apply(images[0])), size=size), expected)
    assert_equal(family.asked(apply(images[1], 0.5, after=apply(images[0])), size=size), expected)


def test_strength_0_is_no_control(family):
    assert all(a is b for a, b in zip(family.controlled(hint_image(), 0.0), family.base.prompts, strict=True))


def test_masks_act_where_they_are_white(family):
    image, size = hint_image(), family.size
    plain = family.asked(family.controlled(image), size=size)
    assert_equal(family.asked(family.controlled(image, effect_mask=torch.ones(1, 30, 20)), size=size), plain)
    right = torch.cat([torch.zeros(1, 64, 32), torch.ones(1, 64, 32)], dim=2)
    half = family.asked(family.controlled(image, effect_mask=right), size=size)
    for a, b in zip(flat(half), flat(plain), strict=True):
        masked, whole = maps(a, family, size), maps(b, family, size)
        quarter = whole.shape[3] // 4
        assert torch.equal(masked[..., whole.shape[3] - quarter :], whole[..., whole.shape[3] - quarter :])
        assert not masked[..., :quarter].any()


def test_a_mask_for_each_latent(family):
    image, masks = hint_image(), torch.stack([torch.ones(16, 16), torch.zeros(16, 16)])
    plain = flat(family.asked(family.controlled(image), batch=2))
    for a, b in zip(flat(family.asked(family.controlled(image, effect_mask=masks), batch=2)), plain, strict=True):
        assert torch.equal(a[[0, 2]], b.expand_as(a)[[0, 2]])
        assert not a[[1, 3]].any()


def test_every_layer_has_its_weight(family):
    plain = flat(family.asked(family.controlled(hint_image())))
    layers = [1 + 0.02 * index for index in range(len(plain))]
    settings = weights(layers=", ".join(map(str, layers)))
    found = ratios(flat(family.asked(family.controlled(hint_image(), options=settings))), plain)
    assert sorted(found) == pytest.approx(layers, abs=1e-4)


def test_sides_have_their_multipliers(family):
    plain = flat(family.asked(family.controlled(hint_image())))
    settings = weights(positive=0.5, negative=2.0)
    for order in ((0, 1), (1, 0)):
        changed = flat(family.asked(family.controlled(hint_image(), options=settings), order=order))
        unlike = flat(family.asked(family.controlled(hint_image()), order=order))
        for factor, row in ((0.5, order.index(0)), (2.0, order.index(1))):
            expected = [r.expand(2, *r.shape[1:])[row] for r in unlike]
            assert ratios([r[row] for r in changed], expected) == pytest.approx([factor] * len(plain))


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 0)])
def test_without_the_negative_side_the_network_gets_the_positive_rows(family, order):
    image, batch = hint_image(), 2
    plain = flat(family.asked(family.controlled(image), batch=batch, order=order))
    controlled = family.controlled(image, options=weights(negative=0.0))
    positive = [chunk * batch + row for chunk, side in enumerate(order) if side == 0 for row in range(batch)]
    with called(controlled[0][0][1]["control"]) as rows:
        found = flat(family.asked(controlled, batch=batch, order=order))
    assert len({id(residual) for residual in found}) == len({id(residual) for residual in plain})
    assert rows in ([len(positive)], [1], [])  # a T2I-Adapter gets the hint; a Control-LoRA's network is not made yet
    for a, b in zip(found, plain, strict=True):
        expected = torch.zeros_like(a)
        expected[positive] = b.expand_as(a)[positive]
        torch.testing.assert_close(a, expected, atol=1e-5 * float(b.abs().max()), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "count", "exponent"),
    [
        ("Flux InstantX", 19 + 38, lambda i: 12 * i / 56),
        ("SD3", 1, lambda _: 0.0),
        ("Qwen Fun", 5, lambda i: 12 * (12 * i) / 59),
        ("HunyuanDiT", 19, lambda i: 12 * (1 - i / 19)),
    ],
)
def test_control_modes_over_the_depth(name, count, exponent):
    family = FAMILIES[name]()
    plain = flat(family.asked(family.controlled(hint_image())))
    changed = flat(family.asked(family.controlled(hint_image(), control_mode="prompt is more important")))
    assert ratios(changed, plain) == pytest.approx([0.825 ** exponent(i) for i in range(count)], abs=1e-4)


def test_1056_tokens():
    family, size = FAMILIES["Flux InstantX"](), (65, 63)
    right = torch.cat([torch.zeros(1, 65, 32), torch.ones(1, 65, 31)], dim=2)
    plain = flat(family.asked(family.controlled(hint_image()), size=size))
    masked = flat(family.asked(family.controlled(hint_image(), effect_mask=right), size=size))
    assert {r.shape[1] for r in plain} == {1056}
    for a, b in zip(masked, plain, strict=True):
        assert torch.equal(maps(a, family, size)[..., 17:], maps(b, family, size)[..., 17:])
        assert not maps(a, family, size)[..., :15].any()


def test_odd_sizes_where_the_host_fails(pixels):
    image = hint_image(height=136, width=120)
    found = flat(pixels.asked(pixels.controlled(image), size=(17, 15)))
    assert {r.shape[1] for r in found} == {9 * 8}
    assert torch.isfinite(pixels.sampled(pixels.controlled(image), size=(17, 15))).all()
    with pytest.raises(Exception, match="can't divide axis of length 17"):
        pixels.asked(pixels.host_controlled(image), size=(17, 15))


def test_qwen_funs_strength_is_a_root():
    family = FAMILIES["Qwen Fun"]()
    plain, schedule = (
        flat(family.asked(family.controlled(hint_image()))),
        run(ControlNetSchedule, schedule="0.25@0", interpolation="linear")[0],
    )
    for controlled in (family.controlled(hint_image(), 0.25), family.controlled(hint_image(), options=schedule)):
        assert ratios(flat(family.asked(controlled)), plain) == pytest.approx([0.5] * 5)
