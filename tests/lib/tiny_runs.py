"""Runs of the tiny random model by the host's sampler, and how often a network is computed in them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import comfy.model_patcher
import comfy.sample
import torch
from random_models import SHAPES, hint_image, our_apply, our_load, prompts
from torch import Tensor, nn

TINY = SHAPES["tiny"]
POSITIVE, NEGATIVE = prompts(TINY)
TOKENS = {"positive": POSITIVE[0][0], "negative": NEGATIVE[0][0]}


def sampled(
    model: comfy.model_patcher.ModelPatcher,
    conditionings: Any,
    *,
    steps: int = 4,
    sampler: str = "euler",
    scheduler: str = "normal",
    denoise: float = 1.0,
    seed: int = 5,
    **more: Any,
) -> Tensor:
    """From a latent that is not empty; `more` goes to the host's sampler."""
    latent = torch.randn(1, 4, 8, 8, generator=torch.manual_seed(7))
    noise = comfy.sample.prepare_noise(latent, seed)
    positive, negative = conditionings
    with torch.inference_mode():
        return comfy.sample.sample(
            *(model, noise, steps, 4.0, sampler, scheduler, positive, negative, latent),
            denoise=denoise,
            seed=seed,
            **more,
        )


@contextmanager
def counted(module: nn.Module) -> Generator[list[int]]:
    """The batch sizes that `module` was called with."""
    batches: list[int] = []
    handle = module.register_forward_hook(lambda _, inputs, __: batches.append(inputs[0].shape[0]))
    yield batches
    handle.remove()


def evaluations(
    model: comfy.model_patcher.ModelPatcher, name: str, inputs: dict[str, Any] | None = None, **settings: Any
) -> int:
    """How often the network is computed in a run; `inputs` are of ApplyControlNet, `settings` of `sampled`."""
    control = our_load(name)
    conditionings = our_apply(POSITIVE, NEGATIVE, control, hint_image(), **(inputs or {}))
    with counted(control.source.network) as batches:
        sampled(model, conditionings, **settings)
    return len(batches)
