"""Two halves of a batch side by side on a CPU, each with its half of the threads.

Small networks gain more from that than from threads inside of their operations. Autograd adds the gradients of both,
and a sum of two does not depend on which of them is done first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from .config import TrainConfig

LANES = 2
T = TypeVar("T")


class Lanes:
    """Two threads; closing ends them."""

    def __init__(self, threads: int) -> None:
        self.pool = ThreadPoolExecutor(
            LANES,
            thread_name_prefix="controlnet-kit-lane",
            initializer=torch.set_num_threads,
            initargs=(threads // LANES,),
        )

    @classmethod
    def of(cls, config: TrainConfig, accelerator: Accelerator) -> Lanes | None:
        """None where they do not go: one thread, GPUs, several processes, networks that keep notes while they run."""
        target, threads = config.target, torch.get_num_threads()
        plain = target.kind == "controlnet" and not config.optimizer.in_backward
        alone = accelerator.distributed_type == DistributedType.NO and accelerator.device.type == "cpu"
        return cls(threads) if plain and alone and threads >= LANES else None

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def __call__(self, work: Callable[[int, int], T], count: int) -> list[T]:
        """`work(start, stop)` for both halves of `count` at once; its results in order."""
        middle = count // LANES
        return list(self.pool.map(work, (0, middle), (middle, count)))
