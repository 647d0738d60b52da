"""The order of pairs: a pure function, without repeats, with every pair."""

from __future__ import annotations

import torch
from controlnet_kit.training.order import Order, batches, count_before

SIZES = {(8, 8): torch.arange(0, 23), (8, 16): torch.arange(23, 40)}


def test_each_pass_has_every_pair_once() -> None:
    """23 and 17 pairs in batches of 4: the streams' first 20 and 16 elements are permutations cut short."""
    order = Order(SIZES, 4, seed=1)
    seen = torch.cat([order.rows(step) for step in range(4 * 10)])
    counts = torch.bincount(seen, minlength=40)
    assert counts.min() >= 3 and counts.max() <= 5
    narrow = seen[seen < 23]
    for start in range(0, len(narrow) - 22, 23):
        assert len(set(narrow[start : start + 23].tolist())) >= 19


def test_a_batch_has_one_size_and_no_repeats_within_a_pass() -> None:
    for rows in batches(SIZES, 4, seed=3, epoch=0):
        assert len(set(rows.tolist())) == 4
        assert (rows < 23).all() or (rows >= 23).all()


def test_any_step_without_those_before_it() -> None:
    order = Order(SIZES, 4, seed=1)
    first = [order.rows(step) for step in range(60)]
    assert all(torch.equal(Order(SIZES, 4, seed=1).rows(step), first[step]) for step in (0, 7, 31, 59))
    assert not torch.equal(Order(SIZES, 4, seed=2).rows(0), first[0])


def test_fewer_pairs_than_a_batch() -> None:
    order = Order({(8, 8): torch.tensor([7])}, 4, seed=0)
    assert order.rows(0).tolist() == order.rows(5).tolist() == [7, 7, 7, 7]
    three = Order({(8, 8): torch.arange(3)}, 4, seed=0)
    assert torch.bincount(torch.cat([three.rows(step) for step in range(3)])).tolist() == [4, 4, 4]


def test_epochs_add_up() -> None:
    for epoch in range(6):
        found = len(batches(SIZES, 4, 0, epoch))
        assert count_before(SIZES, 4, epoch + 1) - count_before(SIZES, 4, epoch) == found
