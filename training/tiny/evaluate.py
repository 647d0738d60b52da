"""How well the embedded base and its ControlNets do on compositions they were never trained on.

Shapes: N pictures, H = W = 128 pixels; pictures are N H W 3 uint8.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ...cn_core.diffusion import ddim, guided
from ...cn_core.errors import CheckpointError
from ...cn_core.files import checkpoint
from ...cn_core.files.detect import detect
from ...cn_core.networks.autoencoder import SCALING_FACTOR, Autoencoder
from ...cn_core.networks.controlnet import ControlNet
from ...cn_core.networks.text_encoder import WordTextEncoder
from ...cn_core.networks.unet import UNet
from ...cn_core.preprocess.canny import CannySettings, canny_edges
from ...cn_core.preprocess.fidelity.edges import edge_scores
from ..bases import tiny as bases
from ..synth import palette, world
from .autoencoder import to_pixels

ASSETS = Path(__file__).resolve().parents[2] / "assets"
PICTURES = 64
SEED = 11


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
            residuals = None if control is None or features is None else control(twice, times, context, features)
            conditional, unconditional = self.unet(twice, times, context, residuals=residuals).chunk(2)
            return guided(conditional, unconditional, self.guidance)

        noise = torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
        *_, latents = ddim(denoise, noise, steps=self.steps)
        return to_images(self.autoencoder.decode(latents / SCALING_FACTOR))

    @torch.inference_mode()
    def round_trip(self, images: np.ndarray) -> np.ndarray:
        """The pictures (N H W 3 uint8) through the autoencoder and back: the best the base could do."""
        return to_images(self.autoencoder.decode(self.autoencoder.encode(to_pixels(images))))


def to_images(pixels: Tensor) -> np.ndarray:
    """N 3 H W, about [-1, 1] -> N H W 3 uint8."""
    return pixels.clamp(-1, 1).add(1).mul(127.5).round().byte().movedim(1, -1).contiguous().numpy()


def load_generator(assets: Path) -> Generator:
    """The shipped base."""
    parts = bases.load(assets)
    return Generator(unet=parts.unet, text_encoder=parts.text_encoder, autoencoder=parts.autoencoder)


def load_control(assets: Path, condition: str) -> ControlNet:
    """A shipped ControlNet."""
    file = checkpoint.read(assets / "controlnets" / f"tiny_{condition}.safetensors")
    detected = detect(file.tensors)
    if detected is None:
        raise CheckpointError(f"{file.path} is not a ControlNet.")
    control = ControlNet(detected.config)
    checkpoint.load_strictly(control, file.tensors, name=file.path.name)
    return control.eval()


def held_out(count: int) -> list[world.Composition]:
    """Compositions never trained on."""
    return list(world.compositions(world.HELD_OUT_SEED, count))


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
    """Held-out compositions of one shape on a plain background, a new colour for each shape and each background."""
    rng = np.random.default_rng(seed)
    shapes = (c for c in world.compositions(first_seed, 100 * count) if is_single_shape(c))
    chosen = list(itertools.islice(shapes, count))
    pairs = [palette.distinct(2, rng) for _ in chosen]
    return chosen, [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def is_single_shape(composition: world.Composition) -> bool:
    """Captions such as "red star on blue background"."""
    words = composition.caption.split()
    return len(words) == 5 and words[1] in world.SHAPES


def colours_followed(images: np.ndarray, silhouettes: np.ndarray, inside: list[str], outside: list[str]) -> float:
    """Share of regions (shape and background of each picture) whose nearest palette colour is the one named."""
    kernel = np.ones((5, 5), np.uint8)
    hits = []
    for image, silhouette, shape, background in zip(images, silhouettes, inside, outside, strict=True):
        core, rest = cv2.erode(silhouette, kernel) > 127, cv2.dilate(silhouette, kernel) <= 127
        hits += [nearest_colour(image[core]) == shape, nearest_colour(image[rest]) == background]
    return float(np.mean(hits))


def colours_with_control(generator: Generator, control: ControlNet, count: int = 32) -> tuple[float, int]:
    """(share of colours as the prompt says, pictures): recoloured held-out shapes, drawn from their Canny edges."""
    shapes, inside, outside = recoloured_shapes(world.HELD_OUT_SEED, count, SEED)
    named = [c.caption.split()[1] for c in shapes]
    prompts = [f"{a} {shape} on {b} background" for a, shape, b in zip(inside, named, outside, strict=True)]
    images = generator.generate(prompts, SEED, control, canny_hints(shapes))
    return colours_followed(images, silhouette_hints(shapes), inside, outside), len(shapes)
