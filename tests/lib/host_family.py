"""One of the host's families: evaluate and sample it with the host's control and with ours.

Shapes: B latents, C channels, H W latent, h w pixels. One evaluation has R = chunks * B rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sampler_helpers
import comfy.samplers
import torch
import torch.nn.functional as F
from comfy.controlnet import ControlBase
from comfy.model_base import BaseModel
from random_models import (
    Conditioning,
    our_apply,
)
from random_transformers import (
    Base,
)
from torch import Tensor

import nodes

Residuals = dict[str, list[Any]]
"""The host's."""


def flat(found: Residuals | None) -> list[Tensor]:
    """Those that are there."""
    assert found is not None
    return [residual for key in ("input", "middle", "output") for residual in found[key] if residual is not None]


def assert_equal(found: Residuals | None, expected: Residuals | None) -> None:
    """The same residuals at the same places, bit for bit, and some that are not 0."""
    assert found is not None
    assert expected is not None
    for key in ("input", "middle", "output"):
        assert [residual is None for residual in found[key]] == [residual is None for residual in expected[key]]
    assert all(torch.equal(a, b) for a, b in zip(flat(found), flat(expected), strict=True))
    assert any(residual.any() for residual in flat(found))


class StandInVAE:
    """Averages of 8 x 8 pixels, mixed into latent channels; remembers what it was given."""

    def __init__(self, channels: int, *, video: bool = False) -> None:
        self.mix = torch.randn(3, channels, generator=torch.Generator().manual_seed(channels))
        self.video = video
        self.given: list[Tensor] = []

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """B h w 3 in [0, 1] -> B C H W, of video B C 1 H W."""
        self.given.append(pixel_samples)
        means = F.avg_pool2d(pixel_samples.movedim(-1, 1), 8).movedim(1, -1)
        latents = ((2 * means - 1) @ self.mix).movedim(-1, 1)
        return latents.unsqueeze(2) if self.video else latents

    def spacial_compression_encode(self) -> int:
        """Pixels for each latent position."""
        return 8


@dataclass(frozen=True, kw_only=True)
class Controls:
    """One network twice."""

    host: ControlBase
    ours: ControlBase
    """From our loader where there is a file, else the host's, which our Apply takes as well."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One network behind the host's control and behind ours, and what goes with it."""

    controls: Controls
    base: Base
    vae: StandInVAE | None = None
    grid: int = 1
    """Latent positions for each of the residuals' tokens; 2 for transformers."""
    size: tuple[int, int] = (17, 15)
    """Height and width of a latent that the host takes; odd where it can be."""
    small: tuple[int, int] = (8, 8)
    """Of a smaller one."""

    def host_controlled(
        self, image: Tensor, strength: float = 1.0, *, after: Sequence[Conditioning] | None = None
    ) -> tuple[Conditioning, Conditioning]:
        """ControlNetApplyAdvanced, `after` another control's conditioning."""
        positive, negative = after or self.base.prompts
        node = nodes.ControlNetApplyAdvanced()
        return node.apply_controlnet(positive, negative, self.controls.host, image, strength, 0.0, 1.0, vae=self.vae)  # pyright: ignore[reportCallIssue]

    def controlled(
        self, image: Tensor, strength: float = 1.0, *, after: Sequence[Conditioning] | None = None, **inputs: Any
    ) -> tuple[Conditioning, Conditioning]:
        """ApplyControlNet."""
        positive, negative = after or self.base.prompts
        inputs = {"vae": self.vae} | inputs
        return our_apply(positive, negative, self.controls.ours, image, strength, **inputs)

    def latent(self, batch: int, size: tuple[int, int]) -> Tensor:
        """Noise."""
        shape = (batch, self.base.channels, *(1,) * self.base.video, *size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(sum(size)))

    def asked(
        self,
        controlled: Sequence[Conditioning],
        *,
        batch: int = 1,
        size: tuple[int, int] | None = None,
        order: Sequence[int] = (0, 1),
        options: Mapping[str, Any] | None = None,
        finish: bool = True,
    ) -> Residuals | None:
        """One evaluation as the host's sampler asks for it; `order` of chunks: 0 positive prompt, 1 negative one."""
        control, model, x = (
            controlled[0][0][1]["control"],
            self.base.model.model,
            self.latent(batch, size or self.small),
        )
        rows, sigma = len(order) * batch, float(model.model_sampling.percent_to_sigma(0.4))
        transformer_options = {"cond_or_uncond": [*order], "uuids": [*range(len(order))], **(options or {})}
        with torch.inference_mode():
            control.pre_run(model, model.model_sampling.percent_to_sigma)
            cond = evaluated(model, [controlled[side] for side in order], x)
            cond["transformer_options"] = transformer_options
            latents = torch.cat([x] * len(order))
            found = control.get_control(latents, torch.full((rows,), sigma), cond, len(order), transformer_options)
            if finish:
                control.cleanup()
        return found

    def sampled(
        self, controlled: Sequence[Conditioning], *, batch: int = 1, size: tuple[int, int] = (8, 8), steps: int = 2
    ) -> Tensor:
        """The host's KSampler node from an empty latent."""
        model, latent = self.base.model, {"samples": torch.zeros_like(self.latent(batch, size))}
        positive, negative = controlled
        with torch.inference_mode():
            out = nodes.KSampler().sample(model, 5, steps, 4.0, "euler", "simple", positive, negative, latent)
        return out[0]["samples"]


def evaluated(model: BaseModel, conditionings: Sequence[Conditioning], x: Tensor) -> dict[str, Any]:
    """What the host's sampler makes of prompts for one evaluation: c_crossattn, y, ... with R rows each."""
    chunks: list[Any] = []
    for conditioning in conditionings:
        conds = comfy.sampler_helpers.convert_cond(conditioning)
        conds = comfy.samplers.encode_model_conds(model.extra_conds, conds, x, x.device, "prompt", latent_image=x)
        chunks.append({key: cond.process_cond(len(x), area=None) for key, cond in conds[0]["model_conds"].items()})
    return comfy.samplers.cond_cat(chunks)
