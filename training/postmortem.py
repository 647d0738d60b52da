"""What is left behind when a loss, a gradient or the weights are no numbers any more: the batch that did it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from .errors import DivergedError

if TYPE_CHECKING:
    from .loop import Trainer


def lost(run: Trainer, step: int, found: str) -> DivergedError:
    """Write the batch of step `step` (from 0) into the output folder; the error to raise, with what was found."""
    path = run.output / f"lost-step-{step + 1:07d}.safetensors"
    if run.accelerator.is_main_process:
        write(run, step, path)
    saved = (
        f"the last checkpoint (step {run.keeper.saved}) is from before" if run.keeper.saved > 0 else "nothing is saved"
    )
    return DivergedError(
        f"In step {step + 1} {found}. Its batch is in {path}, and {saved}; lower optimizer.learning_rate or look at "
        "the batch."
    )


def write(run: Trainer, step: int, path: Path) -> None:
    """All that the step's loss was made of, as it was drawn."""
    draw, batch = run.feed.whole(step)
    tensors = {**vars(batch), "noise": draw.noise, "timesteps": run.timesteps.choose(draw.levels)}
    save_file({name: value.contiguous() for name, value in tensors.items() if value is not None}, path)
