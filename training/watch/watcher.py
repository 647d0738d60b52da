"""`Watcher`: something that looks at a run between steps, such as validation, the loss gap and alarms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..events import Event, StepDone

if TYPE_CHECKING:
    from ..loop import Trainer


class Watcher(Protocol):
    """It may read the run, and changes nothing that training depends on.

    In a run of several processes every one has its watchers, and they are called at the same steps.
    """

    @property
    def name(self) -> str:
        """Under which its state is kept."""
        ...

    def watch(self, run: Trainer, step: StepDone, /) -> Iterable[Event]:
        """Called after each step; events are handed on."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What it has to remember in a checkpoint, for JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """The way back."""
        ...
