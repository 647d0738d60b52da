"""The loop: starts at the base's own loss, trains the copy alone, is reproducible."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from controlnet_kit.training.base import FrozenBase
from controlnet_kit.training.config import TrainConfig
from controlnet_kit.training.loop import Trainer
from controlnet_kit.training.tiny.cache import Compositions

CONFIG = TrainConfig(
    output=Path("x.safetensors"), condition="canny", base=Path(), cache=Path(), steps=4, batch=4, learning_rate=1e-3
)


def trainer(base: FrozenBase, compositions: Compositions, **changes: object) -> Trainer:
    """A run on the shipped base."""
    return Trainer(base.unet, base.text_encoder, compositions, replace(CONFIG, **changes))


def test_before_the_first_step_the_residuals_are_zero(base: FrozenBase, compositions: Compositions) -> None:
    run = trainer(base, compositions)
    hint = run.data.hints("canny", torch.arange(2))
    with torch.no_grad():
        residuals = run.control(
            torch.randn(2, 4, 16, 16), torch.tensor([3, 900]), torch.randn(2, 16, 64), run.control.encode_hint(hint)
        )
    assert not any(residual.any() for residual in (*residuals.down, residuals.mid))


def test_only_the_copy_learns(base: FrozenBase, compositions: Compositions) -> None:
    frozen = {
        name: value.clone()
        for name, value in [*base.unet.state_dict().items(), *base.text_encoder.state_dict().items()]
    }
    run = trainer(base, compositions)
    start = {name: value.clone() for name, value in run.control.state_dict().items()}
    assert len(list(run.run())) == CONFIG.steps
    after = dict([*base.unet.state_dict().items(), *base.text_encoder.state_dict().items()])
    assert all(torch.equal(frozen[name], after[name]) for name in frozen)
    assert all(parameter.grad is None for parameter in [*base.unet.parameters(), *base.text_encoder.parameters()])
    moved = [name for name, value in run.control.state_dict().items() if not torch.equal(value, start[name])]
    assert len(moved) == len(start)


def test_the_same_seed_is_the_same_run_and_another_is_not(base: FrozenBase, compositions: Compositions) -> None:
    first, second, other = ([step.loss for step in trainer(base, compositions, seed=seed).run()] for seed in (5, 5, 6))
    assert first == second != other


def test_it_learns_a_batch_by_heart(base: FrozenBase, compositions: Compositions) -> None:
    """Fixed noise, fixed pictures: the control brings the loss down where the base alone cannot go."""
    run = trainer(base, compositions, steps=30, batch=4, prompt_dropping=1.0)
    state = run.generator.get_state()
    losses = []
    for step in run.run():
        losses.append(step.loss)
        run.generator.set_state(state)
    assert losses[-1] < 0.75 * losses[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"steps": 0}, "at least 1"),
        ({"prompt_dropping": 1.5}, "from 0 to 1"),
        ({"output": Path("a.pth")}, "safetensors"),
    ],
)
def test_bad_settings_say_why(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(CONFIG, **changes)
