"""The shipped base and its ControlNets do what the README says, on compositions they never saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from controlnet_kit.training.synth import world
from controlnet_kit.training.tiny import evaluate
from controlnet_kit.training.tiny.evaluate import ASSETS, PICTURES, SEED


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The held-out set and what the base makes of its captions without control."""

    generator: evaluate.Generator
    compositions: list[world.Composition]
    prompts: list[str]
    without: np.ndarray


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    """Drawn and generated once."""
    generator, compositions = evaluate.load_generator(ASSETS), evaluate.held_out(PICTURES)
    prompts = [c.caption for c in compositions]
    without = generator.generate(prompts, SEED)
    return HeldOut(generator=generator, compositions=compositions, prompts=prompts, without=without)


def test_the_canny_controlnet_holds_the_edges(held_out: HeldOut) -> None:
    hints = evaluate.canny_hints(held_out.compositions)
    control = evaluate.load_control(ASSETS, "canny")
    images = held_out.generator.generate(held_out.prompts, SEED, control, hints)
    controlled, free = evaluate.mean_edge_f1(images, hints), evaluate.mean_edge_f1(held_out.without, hints)
    assert controlled >= 0.76
    assert controlled - free >= 0.5


def test_the_silhouette_controlnet_fills_the_silhouettes(held_out: HeldOut) -> None:
    things = [i for i, prompt in enumerate(held_out.prompts) if "pattern" not in prompt]
    hints = evaluate.silhouette_hints(held_out.compositions)[things]
    control = evaluate.load_control(ASSETS, "silhouette")
    images = held_out.generator.generate([held_out.prompts[i] for i in things], SEED, control, hints)
    controlled, free = evaluate.silhouette_iou(images, hints), evaluate.silhouette_iou(held_out.without[things], hints)
    assert controlled >= 0.70
    assert controlled - free >= 0.2


def test_colours_follow_the_prompt_while_edges_follow_the_hint(held_out: HeldOut) -> None:
    share, pictures = evaluate.colours_with_control(held_out.generator, evaluate.load_control(ASSETS, "canny"))
    assert pictures == 32
    assert share >= 0.7


def test_the_held_out_set_is_not_in_the_training_set(held_out: HeldOut) -> None:
    trained = {c.image.tobytes() for c in world.compositions(0, 300)}
    assert not any(c.image.tobytes() in trained for c in held_out.compositions)
    assert world.HELD_OUT_SEED > 10 * 30_000
