"""How well the embedded base and its ControlNets do on compositions they were never trained on.

Shapes: N pictures, H = W = 128 pixels; pictures are N H W 3 uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ...cn_core.diffusion import ddim, guided
from ...cn_core.networks.autoencoder import SCALING_FACTOR, Autoencoder
from ...cn_core.networks.controlnet import ControlNet
from ...cn_core.networks.text_encoder import WordTextEncoder
from ...cn_core.networks.unet import UNet
from ...cn_core.preprocess.canny import CannySettings, canny_edges
from ...cn_core.preprocess.fidelity import edge_scores
from ..synth import palette, world


@dataclass(frozen=True, kw_only=True)
class Generator:
    """The parts of the embedded base, sampled the way the model card says."""

    unet: UNet
    text_encoder: WordTextEncoder
    autoencoder: Autoencoder
    steps: int = 20
    guidance: float = 3.0

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[str], seed: int, control: ControlNet | None = None, hints: np.ndarray | None = None
    ) -> np.ndarray:
        """One picture per prompt; `hints` are N H W uint8. The same seed starts from the same noise."""
        count = len(prompts)
        context = self.text_encoder(torch.tensor([self.text_encoder.tokenize(p) for p in [*prompts, *[""] * count]]))
        features = None
        if control is not None and hints is not None:
            pixels = torch.from_numpy(hints).float().div(255)[:, None].expand(-1, 3, -1, -1)
            features = torch.cat([control.encode_hint(pixels)] * 2)

        def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
            twice, times = torch.cat([x, x]), torch.cat([timesteps, timesteps])
            residuals = None if features is None else control(twice, times, context, features)
            conditional, unconditional = self.unet(twice, times, context, residuals=residuals).chunk(2)
            return guided(conditional, unconditional, self.guidance)

        noise = torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
        *_, latents = ddim(denoise, noise, steps=self.steps)
        pixels = self.autoencoder.decode(latents / SCALING_FACTOR)
        return pixels.clamp(-1, 1).add(1).mul(127.5).round().byte().movedim(1, -1).numpy()


def mean_edge_f1(images: np.ndarray, hints: np.ndarray) -> float:
    """Mean F1 of the edges of each picture against its hint (N H W uint8)."""
    return float(np.mean([edge_scores(image, hint).f1 for image, hint in zip(images, hints, strict=True)]))


def canny_hints(compositions: Sequence[world.Composition]) -> np.ndarray:
    """N H W uint8."""
    return np.stack([canny_edges(c.image, CannySettings()) for c in compositions])


def silhouette_hints(compositions: Sequence[world.Composition]) -> np.ndarray:
    """N H W uint8."""
    return np.stack([c.silhouette for c in compositions])


def silhouette_iou(images: np.ndarray, silhouettes: np.ndarray) -> float:
    """Mean IoU of each silhouette with the pixels that differ from the picture's background.

    The background colour is the median of the pixels outside the silhouette; a pixel differs when its RGB distance is
    nearer to the median inside than to that.
    """
    scores = []
    for image, silhouette in zip(images.astype(np.float32), silhouettes > 127, strict=True):
        outside, inside = np.median(image[~silhouette], axis=0), np.median(image[silhouette], axis=0)
        found = np.linalg.norm(image - inside, axis=-1) < np.linalg.norm(image - outside, axis=-1)
        scores.append((found & silhouette).sum() / max((found | silhouette).sum(), 1))
    return float(np.mean(scores))


def nearest_colour(pixels: np.ndarray) -> str:
    """The palette's name for the median of pixels (K 3 uint8)."""
    middle = np.median(pixels.astype(np.float32), axis=0)
    return min(palette.RGB, key=lambda name: float(np.linalg.norm(middle - np.asarray(palette.RGB[name]))))


def recoloured_shapes(first_seed: int, count: int, seed: int) -> tuple[list[world.Composition], list[str], list[str]]:
    """Held-out compositions of one shape on a plain background, with two new colours each: (all, shape's, background's)."""
    rng = np.random.default_rng(seed)
    chosen: list[world.Composition] = []
    for composition in world.compositions(first_seed, 100 * count):
        words = composition.caption.split()
        if len(words) == 5 and words[1] in world.SHAPES and len(chosen) < count:
            chosen.append(composition)
    pairs = [palette.distinct(2, rng) for _ in chosen]
    return chosen, [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def colours_followed(images: np.ndarray, silhouettes: np.ndarray, inside: list[str], outside: list[str]) -> float:
    """Share of regions (shape and background of each picture) whose nearest palette colour is the one named."""
    kernel = np.ones((5, 5), np.uint8)
    hits = []
    for image, silhouette, shape, background in zip(images, silhouettes, inside, outside, strict=True):
        core, rest = cv2.erode(silhouette, kernel) > 127, cv2.dilate(silhouette, kernel) <= 127
        hits += [nearest_colour(image[core]) == shape, nearest_colour(image[rest]) == background]
    return float(np.mean(hits))
