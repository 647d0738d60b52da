"""Batches for the loop, read one ahead in another thread while the device computes.

Shapes: B pairs of the whole batch, C h w latent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from .draws import Draw
from .samples import Batch, Samples

Draws = Callable[[int], Draw]
"""Step (from 0) -> the draw of its whole batch."""
Key = tuple[int, int, int]
"""Step, first pair, last pair + 1."""
Part = tuple[Draw, Batch]


class Feed:
    """Serves slices of the steps' batches; closing it ends its thread."""

    def __init__(self, samples: Samples, draws: Draws, *, pinned: bool) -> None:
        self.samples = samples
        self.draws = draws
        self.pinned = pinned
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="controlnet-kit-feed")
        self.ahead: tuple[Key, Future[Part]] | None = None
        self.last: tuple[int, Draw] | None = None

    def close(self) -> None:
        """End the thread."""
        self.thread.shutdown(wait=True, cancel_futures=True)

    def read(self, key: Key) -> Part:
        """In the thread."""
        step, start, stop = key
        if self.last is None or self.last[0] != step:
            self.last = (step, self.draws(step))
        part = self.last[1].part(start, stop)
        with torch.no_grad():
            batch = self.samples.batch(part.rows, part.posterior_noise, part.dropped)
        return (part.pinned(), batch.pinned()) if self.pinned else (part, batch)

    def whole(self, step: int) -> Part:
        """All of a step's batch, for a post-mortem."""
        draw = self.draws(step)
        return self.thread.submit(self.read, (step, 0, len(draw.rows))).result()

    def request(self, key: Key) -> Future[Part]:
        """Begin to read, unless that very part is being read."""
        if self.ahead is None or self.ahead[0] != key:
            self.ahead = (key, self.thread.submit(self.read, key))
        return self.ahead[1]

    def parts(self, step: int, slices: list[tuple[int, int]]) -> Iterator[Part]:
        """The slices of a step, one after the other; meanwhile the next one, or the next step's first, is read."""
        following = [(step, *one) for one in slices[1:]] + [(step + 1, *slices[0])]
        for (start, stop), after in zip(slices, following, strict=True):
            part = self.request((step, start, stop)).result()
            self.request(after)
            yield part
