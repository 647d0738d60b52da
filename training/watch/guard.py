"""`Guard`: runs the checks of `alarms` during a run, and tells each finding once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn

from .. import hardware
from ..events import Alarm, Event, StepDone
from . import alarms
from .alarms import Finding
from .probe import Probe
from .sampling import plain_batch, rows_of_one_size

if TYPE_CHECKING:
    from ..loop import Trainer

MOVED_BY = 50
"""Steps after which zero convolutions have left zero."""
WINDOW = 100
"""Steps between looks at the weights."""
GAP_BY = 8000
"""Steps after which most ControlNets follow their hints; "usually fewer than 10k" by the paper."""
HINTS, SAMPLED = 8, 64
"""Hints, and weights of each tensor, that are looked at."""
REACHED = {"all": "", "middle": "middle_block_out", "shallow": "zero_convs.0."}
"""target.links -> what is in the names of zero convolutions that gradients reach."""


class Guard:
    """Looks at the first steps, and then now and then."""

    name = "guard"

    def __init__(self, probe: Probe | None = None) -> None:
        self.probe = probe
        self.told: list[str] = []
        self.base: Tensor | None = None
        """Sums of the frozen base's tensors at the beginning."""
        self.weights: Mapping[str, Tensor] = {}
        """Samples of the weights that learn, at the last look."""
        self.learned = 0.0
        """Sum of the learning rates since then."""

    def watch(self, run: Trainer, step: StepDone) -> Iterable[Event]:
        """Alarms, each kind once in a run."""
        self.learned += step.learning_rate
        for finding in self.findings(run, step.number):
            if finding is not None and finding.kind not in self.told:
                self.told.append(finding.kind)
                yield Alarm(number=step.number, kind=finding.kind, message=finding.message)

    def findings(self, run: Trainer, number: int) -> Iterator[Finding | None]:
        """Of the checks that are due."""
        module, unet = run.target.module, run.base.unet
        look, first = number % WINDOW == 0, self.base is None
        if first:
            hints = plain_batch(run.samples, rows_of_one_size(run.samples, HINTS)).to(run.accelerator.device).hint
            yield from (alarms.hint_range(hints), alarms.constant_hints(hints))
            self.base = sums(unet)
        if number == MOVED_BY and not run.keeper.sharded:
            yield alarms.unmoved(zeros(module, REACHED[run.config.target.links]), number)
        if (look or first) and run.accelerator.distributed_type in (
            DistributedType.MULTI_GPU,
            DistributedType.MULTI_CPU,
        ):
            mine = sums(module).double().sum()[None]
            yield alarms.ranks_differ(run.accelerator.gather(mine))  # pyright: ignore[reportArgumentType]
        if look:
            yield from self.closer(run, number)

    def closer(self, run: Trainer, number: int) -> Iterator[Finding | None]:
        """What takes a while to show."""
        if self.base is not None:
            names = [name for name, _ in run.base.unet.named_parameters()]
            yield alarms.base_changed(self.base, sums(run.base.unet), names)
        now = sampled(run.target.module, {p for optimizer in run.optimizers.all for p in optimizer.state})
        both = [name for name in now if name in self.weights]
        if both and run.config.optimizer.name.startswith("adamw"):
            before, after = (torch.cat([some[name] for name in both]) for some in (self.weights, now))
            yield alarms.lost_updates(before, after, self.learned)
        self.weights, self.learned = now, 0.0
        if self.probe is not None:
            yield alarms.no_gap(self.probe.gaps, number, min(GAP_BY, 3 * run.config.run.steps // 4))

    def state(self) -> Mapping[str, Any]:
        """What was told."""
        return {"told": self.told}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The way back."""
        self.told = list(state.get("told", []))


@torch.no_grad()
def sums(module: nn.Module) -> Tensor:
    """A number for each parameter (N), float32."""
    return torch.stack([parameter.float().sum() for parameter in module.parameters()])


@torch.no_grad()
def sampled(module: nn.Module, learning: Set[Any]) -> dict[str, Tensor]:
    """A few values of each parameter that has had a gradient, on its device and in its type.

    `learning` are those of which an optimiser keeps something; links leave others out.
    """
    found = {name: hardware.local(p.detach()) for name, p in module.named_parameters() if p in learning}
    return {name: values.flatten()[:SAMPLED].clone() for name, values in found.items()}


def zeros(module: nn.Module, word: str) -> list[str]:
    """Names, with this word in them, of trained weights (not biases) that are nothing but zeros."""
    found = [(name, p) for name, p in module.named_parameters() if p.requires_grad and p.ndim > 1 and word in name]
    largest = torch.stack([p.detach().abs().amax() for _, p in found]).tolist() if found else []
    return [name for (name, _), value in zip(found, largest, strict=True) if value == 0]
