"""Items that are made each time they are wanted, for sets that are too large to keep what is encoded of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .store import Build, Chunk


class LiveShelf:
    """Items by their numbers, all those of a call at once. May be read from several threads."""

    def __init__(self, build: Build) -> None:
        self.build = build
        self.last: tuple[Chunk, Mapping[str, Tensor]] = ((), {})
        """What was made last: hints are wanted as pixels, and at once again as latents."""

    def items(self, numbers: Sequence[int]) -> list[dict[str, Tensor]]:
        """The tensors of some items."""
        wanted, (made, tensors) = tuple(dict.fromkeys(numbers)), self.last
        if wanted != made:
            tensors = self.build(wanted)
            self.last = (wanted, tensors)
        places = [wanted.index(number) for number in numbers]
        return [{name: tensor[place] for name, tensor in tensors.items()} for place in places]
