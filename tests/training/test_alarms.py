"""Each alarm goes off for its fault, and for nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from controlnet_kit.training.errors import TrainingError
from controlnet_kit.training.events import Alarm
from controlnet_kit.training.samples import Batch
from controlnet_kit.training.watch import alarms
from controlnet_kit.training.watch.convergence import Gap
from controlnet_kit.training.watch.guard import Guard, sampled
from torch import Tensor
from training_runs import RandomSamples, configured, finished, of_kind, trainer

HINTS = torch.rand(4, 3, 8, 8)


@pytest.mark.parametrize("hints", [HINTS, HINTS.round(), torch.zeros(4, 3, 8, 8)])
def test_hints_in_range(hints: Tensor) -> None:
    assert alarms.hint_range(hints) is None


@pytest.mark.parametrize("hints", [HINTS * 255, HINTS * 2 - 1, HINTS / 255])
def test_hints_out_of_range(hints: Tensor) -> None:
    found = alarms.hint_range(hints)
    assert found is not None and found.kind == "hint range"


def test_hints_that_show_nothing() -> None:
    some = torch.cat([HINTS[:1], torch.ones(3, 3, 8, 8)])
    assert alarms.constant_hints(HINTS) is None
    for hints in (some, HINTS[:1].expand(4, -1, -1, -1), torch.zeros(4, 3, 8, 8)):
        assert alarms.constant_hints(hints) is not None


def test_the_base_and_the_ranks() -> None:
    sums = torch.tensor([1.0, 2.0])
    assert alarms.base_changed(sums, sums, ["a", "b"]) is None
    found = alarms.base_changed(sums, torch.tensor([1.0, 2.5]), ["a", "b"])
    assert found is not None and "b among them" in found.message
    assert alarms.ranks_differ(torch.tensor([3.0, 3.0])) is None
    assert alarms.ranks_differ(torch.tensor([3.0, 3.1])) is not None
    assert alarms.unmoved([], 50) is None and alarms.unmoved(["zero_convs.0"], 50) is not None


def trained(rate: float, *, stochastic: bool, steps: int = 200) -> tuple[Tensor, Tensor, float]:
    """Weights in bfloat16 before and after updates of about `rate`, as Adam makes them."""
    source = torch.Generator().manual_seed(0)
    before = (torch.randn(4096, generator=source) * 0.02).bfloat16()
    weights = before.clone()
    direction = torch.randn(4096, generator=source).sign()
    for _ in range(steps):
        exact = weights.float() - rate * direction
        if stochastic:
            bits = exact.view(torch.int32) + torch.randint(0, 2**16, exact.shape, generator=source, dtype=torch.int32)
            exact = (bits & -(2**16)).view(torch.float32)
        weights = exact.bfloat16()
    return before, weights, rate * steps


def test_updates_that_rounding_loses_are_told_from_those_it_keeps() -> None:
    assert alarms.lost_updates(*trained(1e-5, stochastic=False)) is not None
    assert alarms.lost_updates(*trained(1e-5, stochastic=True)) is None
    assert alarms.lost_updates(*trained(1e-9, stochastic=False)) is None, "too early to tell"


def test_no_gap_is_told_when_it_is_time() -> None:
    none = [Gap(number=n, other_hint=1e-5, no_control=0, error=1e-4, loss=0.1) for n in (1, 2, 3)]
    some = [Gap(number=n, other_hint=0.02, no_control=0.01, error=1e-3, loss=0.1) for n in (1, 2, 3)]
    assert alarms.no_gap(none, 7999, 8000) is None and alarms.no_gap(some, 8000, 8000) is None
    found = alarms.no_gap(none, 8000, 8000)
    assert found is not None and "run.batch" in found.message


@dataclass(frozen=True, kw_only=True)
class WrongRange(RandomSamples):
    """Hints in [-1, 1]."""

    def batch(self, rows: Tensor, posterior_noise: Tensor, dropped: Tensor) -> Batch:
        right = super().batch(rows, posterior_noise, dropped)
        return Batch(**{**vars(right), "hint": right.hint * 2 - 1})


def test_a_sound_run_has_no_alarms(tmp_path: Path) -> None:
    config = configured(tmp_path / "run", run={"steps": 101, "batch": 2, "log_every": 50})
    assert of_kind(finished(trainer(config, watchers=[Guard()])), Alarm) == []


@pytest.mark.parametrize("links", ["all", "shallow"])
def test_only_weights_that_links_reach_are_looked_at(tmp_path: Path, links: str) -> None:
    run = trainer(configured(tmp_path / "run", run={"steps": 4}, target={"links": links}))
    before = {name: weight.detach().clone() for name, weight in run.target.module.named_parameters()}
    finished(run)
    found = sampled(run.target.module, {p for optimizer in run.optimizers.all for p in optimizer.state})
    assert (found.keys() == before.keys()) == (links == "all")
    still = [name for name, values in found.items() if torch.equal(values, before[name].flatten()[: len(values)])]
    assert found and not still


def test_a_run_with_faults_tells_each_once(tmp_path: Path) -> None:
    config = configured(
        tmp_path / "run", run={"steps": 101, "batch": 2, "log_every": 50}, optimizer={"learning_rate": 0.0}
    )
    run = trainer(config, WrongRange(), watchers=[Guard()])
    told: list[Alarm] = []
    with pytest.raises(TrainingError, match="frozen base changed"):
        for event in run.run():
            if isinstance(event, Alarm):
                told.append(event)
            if event.number == 60:
                next(run.base.unet.out.parameters()).data.add_(1)
    assert [(one.number, one.kind) for one in told] == [
        (1, "hint range"),
        (50, "zero convolutions"),
        (100, "base changed"),
    ]
