"""The host's patches of a model, called in a window of the run only, and acting where a mask allows it.

Shapes: M masks, H W pixels, h w token grid, L = h * w tokens (T * h * w in a video of T latent frames).
One evaluation has R = chunks * B rows.
"""

from __future__ import annotations

import logging
from typing import Any

import comfy.controlnet
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..cn_core.modulation.masks import resized
from ..cn_core.modulation.run import Run
from ..cn_core.modulation.window import Window, active, is_empty

logger = logging.getLogger(__name__)


class Gate:
    """Whether an evaluation lies in the window; one for all patches of a control."""

    def __init__(self, name: str, window: Window, model: ModelPatcher) -> None:
        self.name, self.window = name, window
        self.start(model)

    def start(self, model: ModelPatcher) -> None:
        """Before a run: `model` is the one that samples, which later nodes may have given another noise schedule."""
        sampling: Any = model.get_model_object("model_sampling")
        self.percent_to_sigma = sampling.percent_to_sigma
        self.run: Run | None = None

    def open(self, options: dict[str, Any]) -> bool:
        """By the host's transformer_options; says once a run if the window is empty."""
        sigma, sigmas = float(options["sigmas"][0]), options.get("sample_sigmas")
        if self.run is None:
            listed = (sigma, 0.0) if sigmas is None else tuple(sigmas.tolist())
            self.run = Run(sigmas=listed, percent_to_sigma=self.percent_to_sigma)
            if is_empty(self.window, self.run):
                logger.warning("%s: no control, no step of this run lies in its window (%s).", self.name, self.window)
        return active(self.window, sigma, self.run)


class WindowedPatch:
    """One of the host's patches behind a gate.

    The host multiplies whatever it adds to the tokens by the patch's `strength`: as a tensor over tokens it is a mask.
    """

    def __init__(self, patch: Any, gate: Gate, masks: Tensor | None, frames: int | None) -> None:
        """`masks` is M 1 H W in [0, 1]; `frames` is how many of them a latent frame stands for, None for pictures."""
        self.patch, self.gate, self.masks, self.frames = patch, gate, masks, frames
        self.strength: float = patch.strength
        self.hints: Tensor | None = getattr(patch, "image", None)
        self.acting = False
        self.gains: dict[tuple[Any, ...], Tensor] = {}

    def __call__(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """After a block. The first one decides for all; outside the window the tokens stay as they are."""
        if arguments["block_index"] == 0:
            self.acting = self.gate.open(arguments["transformer_options"])
            if self.acting:
                self.fit_hints(arguments)
                self.patch.strength = self.gain(arguments)
        if self.acting:
            return self.patch(arguments)
        # Z-Image writes back whatever it gets, and nothing means unchanged; the others need it back.
        return {} if "img_input" in arguments else arguments

    def fit_hints(self, arguments: dict[str, Any]) -> None:
        """Several hints: as many as rows, in the order of the host's controls; its patches fail unless they fit."""
        if self.hints is not None:
            hints = comfy.controlnet.broadcast_image_to(self.hints, *layout(arguments))
            if hints.shape[0] != self.patch.image.shape[0]:
                self.patch.image, self.patch.encoded_image = hints, None

    def gain(self, arguments: dict[str, Any]) -> float | Tensor:
        """The strength; with a mask R or 1 rows, L 1, on the device and in the dtype of the tokens."""
        if self.masks is None:
            return self.strength
        x, tokens, rows = arguments["x"], arguments["img"], layout(arguments)
        key = (x.shape, rows, tokens.dtype, tokens.device)
        if key not in self.gains:
            # Begun patches of 2 x 2 at the edge are tokens too.
            grid = resized(self.masks, (-(-x.shape[-2] // 2), -(-x.shape[-1] // 2)))  # M 1 h w
            if self.frames is None:
                factors = comfy.controlnet.broadcast_image_to(grid, *rows).flatten(1)  # R L
            else:
                factors = latent_frames(grid, x.shape[2], self.frames).reshape(1, -1)  # 1 L
            self.gains[key] = (self.strength * factors[..., None]).to(tokens.device, tokens.dtype)
        return self.gains[key]

    def to(self, device_or_dtype: torch.device | torch.dtype) -> WindowedPatch:
        """The host moves patches with their model."""
        self.patch = self.patch.to(device_or_dtype)
        return self

    def models(self) -> list[ModelPatcher]:
        """What the host has to load with the model."""
        return self.patch.models()

    def cleanup(self) -> None:
        """After a run, even if it broke off in the middle of an evaluation."""
        self.acting = False
        self.gains.clear()
        self.patch.strength = self.strength
        if hasattr(self.patch, "temp_data"):
            self.patch.temp_data = None


class WindowedEmbedding(WindowedPatch):
    """Anima's: called once, before the blocks; the patches of its attention act if it has left its embedding."""

    def __init__(self, patch: Any, gate: Gate, masks: Tensor | None, frames: int | None) -> None:
        super().__init__(patch, gate, masks, frames)
        self.embeddings: dict[tuple[Any, ...], Tensor] = {}

    def __call__(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The hint is embedded once a run; the host would do it at every step."""
        options, x = arguments["transformer_options"], arguments["x"]
        if self.gate.open(options):
            key = (x.shape, layout(arguments), x.dtype, x.device)
            if key not in self.embeddings:
                self.fit_hints(arguments)
                self.patch.strength = self.strength  # it asks whether this is 0, which a mask cannot answer
                self.patch(arguments)
                self.embeddings[key] = options["model_patch_data"][self.patch]
            options["model_patch_data"][self.patch] = self.embeddings[key]
            self.patch.strength = self.gain(arguments)
        return arguments

    def cleanup(self) -> None:
        """After a run."""
        super().cleanup()
        self.embeddings.clear()


def layout(arguments: dict[str, Any]) -> tuple[int, int]:
    """R and chunks."""
    return arguments["x"].shape[0], len(arguments["transformer_options"].get("cond_or_uncond", (0,)))


def latent_frames(masks: Tensor, count: int, frames: int) -> Tensor:
    """M 1 h w, a mask for each frame of a video, the last one going on -> `count` 1 h w.

    As the video's VAE takes them: the first frame by itself, then `frames` at a time, of which this is the mean.
    """
    shown = masks[torch.arange(1 + (count - 1) * frames).clamp(max=masks.shape[0] - 1)]
    later = shown[1:].reshape(count - 1, frames, *masks.shape[1:]).mean(dim=1)
    return torch.cat([shown[:1], later])
