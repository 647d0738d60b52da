"""A control at the end of a chain that notes, in the real sampler, which residuals each prompt gets.

Shapes: B latents, C channels, H W latent. One evaluation has R = chunks * B rows, chunk after chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.controlnet
import comfy.model_patcher
import torch
from torch import Tensor

Conditioning = list[Any]
"""The host's."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What one prompt got in one evaluation."""

    evaluation: int
    """Counted from 0."""
    prompt: str
    """By its text."""
    uuid: object
    x: Tensor
    """B C H W"""
    text: Tensor
    """B tokens width"""
    sigma: float
    residuals: list[Tensor] | None
    """Each B C H W."""
    beside: int
    """How many chunks the evaluation had."""

    @property
    def controlled(self) -> bool:
        """Any residual is not zero."""
        return self.residuals is not None and any(bool(residual.any()) for residual in self.residuals)


class ResidualRecorder(comfy.controlnet.ControlBase):
    """Passes on what the chain before it gives."""

    def __init__(self, previous: comfy.controlnet.ControlBase, prompts: Mapping[str, Tensor], found: list[Chunk]):
        super().__init__()
        self.set_previous_controlnet(previous)
        self.chain: Any = previous
        self.prompts = prompts
        self.found = found
        self.leftovers: set[str] = set()
        """What of the pack's own is still among the prompt's tensors when the model gets them."""

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int, transformer_options: dict[str, Any]
    ) -> Any:
        """As the host calls it."""
        text = cond["c_crossattn"].clone()
        given = self.chain.get_control(x_noisy, t, cond, batched_number, transformer_options)
        self.leftovers |= {key for key in cond if "controlnet_kit" in key}
        residuals = None if given is None else [r.clone() for key in given for r in given[key] if r is not None]
        evaluation = self.found[-1].evaluation + 1 if self.found else 0
        for index, part in enumerate(torch.arange(x_noisy.shape[0]).chunk(batched_number)):
            chunk = Chunk(
                evaluation=evaluation,
                prompt=self.name(text[part[0]]),
                uuid=transformer_options["uuids"][index],
                x=x_noisy[part].clone(),
                text=text[part],
                sigma=float(t[0]),
                residuals=None if residuals is None else [residual[part] for residual in residuals],
                beside=batched_number,
            )
            self.found.append(chunk)
        return given

    def name(self, text: Tensor) -> str:
        """Of the prompt with this text."""
        return next(name for name, tokens in self.prompts.items() if torch.equal(tokens[0], text))


def recorded(
    *conditionings: Conditioning, prompts: Mapping[str, Tensor]
) -> tuple[list[Conditioning], list[Chunk], list[ResidualRecorder]]:
    """The same prompts with a recorder at the end of each chain, the list that fills during a run, the recorders."""
    found: list[Chunk] = []
    recorders: dict[comfy.controlnet.ControlBase, ResidualRecorder] = {}

    def entry(values: dict[str, Any]) -> dict[str, Any]:
        if (control := values.get("control")) is None:
            return values
        if control not in recorders:
            recorders[control] = ResidualRecorder(control, prompts, found)
        return {**values, "control": recorders[control]}

    changed = [[[tokens, entry(values)] for tokens, values in pairs] for pairs in conditionings]
    return changed, found, list(recorders.values())


def by_hand(control: Any, model: comfy.model_patcher.ModelPatcher, x: Tensor, text: Tensor, sigma: float) -> Any:
    """The residuals of a control for rows that are all of one prompt, outside the sampler."""
    sampling = model.model.model_sampling
    with torch.inference_mode():
        control.pre_run(model.model, sampling.percent_to_sigma)
        sigmas = torch.full((x.shape[0],), sigma)
        given = control.get_control(x, sigmas, {"c_crossattn": text}, 1, {"cond_or_uncond": [0], "uuids": [0]})
        control.cleanup()
    return [residual for key in given for residual in given[key] if residual is not None]


def of(found: list[Chunk], prompt: str) -> Iterator[Chunk]:
    """What one prompt got, in the order of the run."""
    return (chunk for chunk in found if chunk.prompt == prompt)
