"""Whether all processes have the memory for a step, found out while none of them waits for another.

When one process ran out of memory amid a step, the others would wait for its gradient. So the first step of each kind
is rehearsed: computed without a word to the others, who then say how it went. For FSDP and DeepSpeed there is no such
step: their processes exchange weights all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import torch
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from .loop import Trainer
    from .order import Order

ELSEWHERE = "Another process had too little."


class Rehearsal:
    """Remembers the kinds of steps that were rehearsed."""

    def __init__(self, order: Order) -> None:
        self.order = order
        """Of the run's batches; one of its own, since the feed's thread uses the run's."""
        self.seen: set[Hashable] = set()

    def shortage(self, run: Trainer) -> str | None:
        """What is said of too little memory; None if all processes have enough, or nobody has to be asked."""
        if not isinstance(run.module, DistributedDataParallel) or (kind := self.kind(run)) in self.seen:
            return None
        found = shortage(run, lambda: run.computation.rehearse(run.feed, run.done, run.share, run.micro))
        run.optimizers.zero_grad()
        if run.any_process(found is not None):
            return found or ELSEWHERE
        self.seen.add(kind)
        return None

    def kind(self, run: Trainer) -> Hashable:
        """Steps of one kind take the same memory."""
        target, step = run.config.target, run.done
        begun = (0 < target.reconnect_at <= step, 0 < target.unlock_decoder_at <= step)
        size = run.samples.latent_shape(int(self.order.rows(step)[0]))
        return run.micro, size, begun, bool(run.optimizers.all[0].state)


def shortage(run: Trainer, work: Callable[[], None]) -> str | None:
    """What the device says of too little memory for this, or None."""
    try:
        with torch.inference_mode(False), torch.enable_grad(), run.rounding():
            work()
    except torch.OutOfMemoryError as error:
        return str(error)
    return None
