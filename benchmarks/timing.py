"""Clocks for comparisons: two things done in turns, so that whatever else the machine does hits both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

THREADS = 1
"""Of torch. On a machine that does other work as well, a second thread mostly measures the wait for a free core."""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """How long something took."""

    wall: float
    cpu: float
    """Of all threads of this process: on a CPU hardly touched by what else the machine does."""

    def __add__(self, other: Seconds) -> Seconds:
        """One after the other."""
        return Seconds(wall=self.wall + other.wall, cpu=self.cpu + other.cpu)


NO_TIME = Seconds(wall=0.0, cpu=0.0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Pairs of runs, first and second of each next to each other in time."""

    pairs: Sequence[tuple[Seconds, Seconds]]

    @property
    def wall(self) -> float:
        """Median of the ratios first / second."""
        return statistics.median(first.wall / second.wall for first, second in self.pairs)

    @property
    def cpu(self) -> float:
        """The same in CPU time."""
        return statistics.median(first.cpu / second.cpu for first, second in self.pairs)

    @property
    def medians(self) -> tuple[float, float]:
        """Of either, in seconds."""
        first, second = zip(*self.pairs, strict=True)
        return statistics.median(one.wall for one in first), statistics.median(one.wall for one in second)


def seconds(function: Callable[[], object]) -> Seconds:
    """Time one call, to the end of what it started on a GPU."""
    synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    synchronise()
    return Seconds(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compare(first: Callable[[], object], second: Callable[[], object], pairs: int) -> Comparison:
    """Both once to warm up, then in turns; every other pair begins with the second."""
    found: list[tuple[Seconds, Seconds]] = []
    for pair in range(pairs + 1):
        if pair % 2:
            one = seconds(first)
            found.append((one, seconds(second)))
        else:
            two = seconds(second)
            found.append((seconds(first), two))
    return Comparison(pairs=found[1:])
