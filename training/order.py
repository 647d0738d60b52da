"""Which pairs make up the batch of a step: a pure function of the seed and the step's number.

For each latent size the rows form an endless stream: one permutation after the other. Batches are cut from the streams
one after the other, so no pair comes twice before all others of its size have come once, and none is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

Sizes = Mapping[tuple[int, int], Tensor]
"""Latent height and width -> rows."""


def generator(seed: int, *purpose: int | str) -> torch.Generator:
    """A CPU generator for one purpose of a run: neighbouring seeds and steps have nothing in common."""
    digest = hashlib.sha256(" ".join(map(str, (seed, *purpose))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def count_before(sizes: Sizes, global_batch: int, epoch: int) -> int:
    """How many batches the epochs before this one have: in each size as many as are full by then."""
    return sum(len(rows) * epoch // global_batch for rows in sizes.values())


def stream(rows: Tensor, seed: int, size: tuple[int, int], start: int, stop: int) -> Tensor:
    """The elements `start` to `stop` of a size's stream."""
    passes = range(start // len(rows), (stop - 1) // len(rows) + 1)
    shuffled = [rows[torch.randperm(len(rows), generator=generator(seed, "rows", *size, p))] for p in passes]
    first = passes.start * len(rows)
    return torch.cat(shuffled)[start - first : stop - first]


def batches(sizes: Sizes, global_batch: int, seed: int, epoch: int) -> list[Tensor]:
    """The batches (each `global_batch` rows of one size) that become full in this epoch, in the order of training.

    An epoch of fewer rows than a batch may have none.
    """
    found: list[Tensor] = []
    for size in sorted(sizes):
        rows = sizes[size]
        first, last = len(rows) * epoch // global_batch, len(rows) * (epoch + 1) // global_batch
        if last > first:
            elements = stream(rows, seed, size, first * global_batch, last * global_batch)
            found += elements.split(global_batch)
    order = torch.randperm(len(found), generator=generator(seed, "batches", epoch))
    return [found[index] for index in order.tolist()]


class Order:
    """The batch of any step; it keeps the epoch that was asked for last."""

    def __init__(self, sizes: Sizes, global_batch: int, seed: int) -> None:
        self.sizes = {size: rows for size, rows in sizes.items() if len(rows)}
        if not self.sizes:
            raise ValueError("There are no pairs to train on.")
        self.global_batch = global_batch
        self.seed = seed
        self.total = sum(len(rows) for rows in self.sizes.values())
        self.epoch = -1
        self.batches: list[Tensor] = []

    def epoch_of(self, step: int) -> int:
        """The epoch that holds step `step` (from 0)."""
        epoch = step * self.global_batch // self.total
        while count_before(self.sizes, self.global_batch, epoch + 1) <= step:
            epoch += 1
        return epoch

    def rows(self, step: int) -> Tensor:
        """The rows of step `step` (from 0): `global_batch`, all of one size."""
        epoch = self.epoch_of(step)
        if epoch != self.epoch:
            self.epoch, self.batches = epoch, batches(self.sizes, self.global_batch, self.seed, epoch)
        return self.batches[step - count_before(self.sizes, self.global_batch, epoch)]
