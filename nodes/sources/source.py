"""`ControlSource`: what a control asks of the network behind it, whichever that is.

Shapes: B latents, C channels, H W latent. One evaluation has R = chunks * B rows (positive and negative prompt, say),
chunk after chunk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import comfy.controlnet
import comfy.model_base
import comfy.model_patcher
import torch
from torch import Tensor

from ..cache import Features, HintCache

Layout = Literal["unet", "t2i", "transformer"]
Control = dict[str, list[Tensor | None]]
"""Residuals as the host takes them: lists under "input", "middle" and "output"; the host empties the lists."""


def mapped(control: Control, change: Callable[[Tensor], Tensor]) -> Control:
    """Every residual changed, once: transformers' networks repeat a tensor in several places, which stay one."""
    done: dict[int, Tensor] = {}

    def once(residual: Tensor | None) -> Tensor | None:
        if residual is not None and id(residual) not in done:
            done[id(residual)] = change(residual)
        return None if residual is None else done[id(residual)]

    return {key: [once(residual) for residual in entries] for key, entries in control.items()}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One evaluation of the model, or some of its chunks."""

    x: Tensor
    """R C H W, noisy latents before the model scales them."""
    sigmas: Tensor
    """R, all the same."""
    cond: dict[str, Any]
    """The host's: c_crossattn, y, ... with R rows each."""
    chunks: int
    options: dict[str, Any]
    """The host's transformer_options of this evaluation; a source may add patches to it."""
    sampling: Any
    """The model's noise schedule (the host's ModelSampling)."""
    control_types: tuple[int, ...] = ()
    """Union networks: the type of each hint."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further arguments that nodes have set on the control."""

    @property
    def batch(self) -> int:
        """B."""
        return self.x.shape[0] // self.chunks

    def of_chunks(self, chosen: Sequence[int]) -> Call:
        """The same evaluation with the chosen chunks only. Patches go to the host's own options either way."""
        options = {
            **self.options,
            **{
                key: [self.options[key][i] for i in chosen]
                for key in ("cond_or_uncond", "uuids")
                if key in self.options
            },
        }

        def some(value: Any) -> Any:
            if isinstance(value, list):  # the host's CONDList: reference latents
                return [some(part) for part in value]
            if not isinstance(value, Tensor) or value.shape[:1] != self.x.shape[:1]:
                return value
            # Not by an index: the host leaves texts on the CPU, and an index would have to be there too.
            return torch.cat([value[chunk * self.batch : (chunk + 1) * self.batch] for chunk in chosen])

        cond = {key: some(value) for key, value in self.cond.items() if key != "transformer_options"}
        return replace(
            self,
            x=some(self.x),
            sigmas=some(self.sigmas),
            cond={**cond, "transformer_options": options},
            chunks=len(chosen),
            options=options,
        )


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How strongly a network that acts inside the model's forward may act; all others are scaled by the control."""

    rows: Tensor
    """R: strength, schedule, per-frame and per-prompt multipliers in one."""
    mask: Tensor | None = None
    """R or 1 rows, 1 H W in [0, 1] at the latent's size; None: everywhere."""


class ControlSource(ABC):
    """A network in memory, shared by all copies of a control. Everything that lives for one run is the control's."""

    name: str
    """File name, for messages."""
    family: str
    """Such as "SDXL", for messages."""
    kind: str
    """Such as "ControlNet" or "T2I-Adapter", for messages."""
    layout: Layout
    """Which residuals it returns; decides the weights of layers."""
    control_types: tuple[str, ...] = ()
    """Union networks: the names of the types of hints that the file knows, by number."""
    inside: bool = False
    """It acts inside the model's forward (`install`), and returns no residuals."""

    def copy(self) -> ControlSource:
        """For a copy of the control: the same one, unless it keeps something for a run."""
        return self

    @abstractmethod
    def models(self) -> list[comfy.model_patcher.ModelPatcher]:
        """What the host has to hold on the device during a run."""

    def memory(self, dtype: torch.dtype) -> float:  # noqa: ARG002
        """Bytes needed besides `models`."""
        return 0

    @abstractmethod
    def for_device(self, device: torch.device) -> ControlSource:
        """The same with weights of its own on another device (multi-GPU)."""

    def prepare(self, control: comfy.controlnet.ControlBase, cache: HintCache) -> None:  # noqa: B027  most sources need none
        """Before `start`: take over what nodes have set on the control, if that is not in the calls."""

    def check(self, model: comfy.model_base.BaseModel) -> None:  # noqa: B027  most sources need none
        """Raise FamilyMismatchError if the network cannot control `model`, where that can be told."""

    def start(self, model: comfy.model_base.BaseModel) -> None:  # noqa: B027  most sources need none
        """Before a run, after `check`; maybe several times."""

    def stop(self) -> None:  # noqa: B027  most sources need none
        """After a run. Not called after an error: `start` must not rely on it."""

    def hint_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Height and width in pixels of the hint for a latent of this size; None: it resizes hints itself."""
        return 8 * height, 8 * width

    def response(self, strength: float) -> float:
        """What residuals are multiplied by for a strength that the user set."""
        return strength

    @abstractmethod
    def encode(self, hints: Sequence[Tensor], control_types: Sequence[int]) -> Features:
        """Hints (each R or 1 rows, 3 h w in [0, 1], on the device, any dtype; several only for union networks)."""

    def residuals(self, call: Call, features: Features) -> Control:
        """Fresh tensors, not yet multiplied by the strength (not `inside`)."""
        raise NotImplementedError(f"{self.kind} returns no residuals, it acts inside the model.")

    def install(self, call: Call, features: Features, gain: Gain) -> None:
        """Add patches to `call.options` for this one evaluation (`inside` only)."""
        raise NotImplementedError(f"{self.kind} returns residuals, it does not act inside the model.")
