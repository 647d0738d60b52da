"""What is left behind when a loss, a gradient or the weights are no numbers any more: the batch that did it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...cn_core.files import checkpoint
from ..errors import DivergedError

if TYPE_CHECKING:
    from ..loop import Trainer
    from ..timesteps import Timesteps


def lost(run: Trainer, step: int, found: str, timesteps: Timesteps) -> DivergedError:
    """Write the batch of step `step` (from 0) into the output folder, if its disk takes it; the error to raise.

    `found` says what is no number: "the loss is nan". `timesteps` are as they were before the step.
    """
    path = run.output / f"lost-step-{step + 1:07d}.safetensors"
    batch = f"Its batch is in {path}"
    if run.accelerator.is_main_process:
        try:
            write(run, step, path, timesteps)
        except OSError as error:
            batch = f"Its batch cannot be written to {path} ({error})"
    saved = (
        f"the last checkpoint (step {run.keeper.saved}) is from before" if run.keeper.saved > 0 else "nothing is saved"
    )
    return DivergedError(
        f"In step {step + 1} {found}. {batch}, and {saved}; lower optimizer.learning_rate or look at the batch."
    )


def write(run: Trainer, step: int, path: Path, timesteps: Timesteps) -> None:
    """All that the step's loss was made of, as it was drawn."""
    draw, batch = run.feed.whole(step)
    tensors = {**vars(batch), "noise": draw.noise, "timesteps": timesteps.choose(draw.levels)}
    checkpoint.write(path, {name: value for name, value in tensors.items() if value is not None}, {})
