"""What fails silently, found early: each check is a function of what it looks at, and says what to do.

Shapes: B pairs, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .convergence import Gap

CONSTANT = 1 / 255
"""A hint with a smaller deviation shows nothing."""
DARK = 2 / 255
"""A hint that is nowhere brighter was divided by 255 twice."""
LOST = 0.8
"""Share of weights that may stay as they are although updates add up to more than their spacing."""
VISIBLE = 4
"""Spacings that updates have to add up to."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that seems wrong."""

    kind: str
    message: str


def unmoved(still: Sequence[str], step: int) -> Finding | None:
    """Names of trained weights that are all zero after `step` steps."""
    if not still:
        return None
    return Finding(
        kind="zero convolutions",
        message=f"{len(still)} weights that begin at zero are still zero after {step} steps, {still[0]} among them: no "
        "gradient reaches them. Stop, and look at optimizer.learning_rate, its warm-up and target.links.",
    )


def hint_range(hints: Tensor) -> Finding | None:
    """Hints (B 3 H W) that are not in [0, 1]."""
    low, high = float(hints.min()), float(hints.max())
    if low >= 0 and DARK < high <= 1:
        return None
    if low == high == 0:  # constant, which is another finding
        return None
    return Finding(
        kind="hint range",
        message=f"Hints are between {low:.3g} and {high:.3g}, and should be in [0, 1]; whoever uses the ControlNet "
        "feeds it [0, 1]. Stop, and look at what makes data.hints.",
    )


def constant_hints(hints: Tensor) -> Finding | None:
    """Hints (B 3 H W) that mostly show nothing, or all the same."""
    empty = int((hints.flatten(1).std(dim=1) < CONSTANT).sum())
    same = len(hints) > 1 and bool((hints - hints[:1]).abs().amax() < CONSTANT)
    if 2 * empty <= len(hints) and not same:
        return None
    what = f"{empty} of {len(hints)} hints are of one colour" if 2 * empty > len(hints) else "All hints are alike"
    return Finding(
        kind="constant hints",
        message=f"{what}: there is nothing to follow in them. Run `controlnet-kit lint`, or change the settings of "
        "the preprocessor in data.preprocessor_params.",
    )


def base_changed(before: Tensor, now: Tensor, names: Sequence[str]) -> Finding | None:
    """Sums of the frozen base's tensors (N each), then and now."""
    moved = [name for name, differs in zip(names, (before != now).tolist(), strict=True) if differs]
    if not moved:
        return None
    return Finding(
        kind="base changed",
        message=f"{len(moved)} tensors of the frozen base changed, {moved[0]} among them, so the ControlNet will not "
        "fit it. Stop: something else in this process trains or patches the base.",
    )


def ranks_differ(sums: Tensor) -> Finding | None:
    """A sum over the trained weights from each process (N): after a step they are the same, if gradients were."""
    if bool((sums == sums[0]).all()):
        return None
    return Finding(
        kind="ranks differ",
        message=f"The {len(sums)} processes have different weights: their gradients are not synchronised, and each "
        "trains for itself. Stop, and look at the launcher's settings (accelerate config).",
    )


def lost_updates(before: Tensor, now: Tensor, learned: float) -> Finding | None:
    """Samples of the same weights (N), and the sum of the learning rates in between.

    Adam moves a weight by about the learning rate, so it should have moved once the sum is past some of its spacings,
    |w| eps. Weights for which it is not do not count.
    """
    visible = learned > VISIBLE * before.abs().float() * torch.finfo(before.dtype).eps
    if int(visible.sum()) < len(before) // 10:
        return None
    share = float((before == now)[visible].float().mean())
    if share <= LOST:
        return None
    name = str(before.dtype).removeprefix("torch.")
    return Finding(
        kind="lost updates",
        message=f"{share:.0%} of the {name} weights did not move although they should: updates are rounded away. "
        "Set optimizer.weights to fp32, or to bf16 with adamw, which rounds stochastically.",
    )


def no_gap(gaps: Sequence[Gap], step: int, after: int) -> Finding | None:
    """The hint makes no difference after so many steps: the last three measurements are about nothing."""
    last = gaps[-3:]
    if step < after or len(last) < 3 or any(gap.noticed for gap in last):
        return None
    return Finding(
        kind="no gap",
        message=f"After {step} steps another picture's hint serves as well as the right one: hints are not read yet. "
        "Check that hints and pictures belong together (`controlnet-kit lint`); else raise run.batch to 64 or more, "
        "optimizer.learning_rate, or objective.prompt_dropping.",
    )
