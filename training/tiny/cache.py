"""The tiny world as training data: latents, token numbers and hints of many compositions, computed once.

Shapes: N compositions, H = W = 128 pixels, latents N 4 16 16 (scaled, deviation about 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ...cn_core.networks.autoencoder import SCALING_FACTOR, Autoencoder
from ...cn_core.networks.text_encoder import WordTextEncoder
from ...cn_core.preprocess.canny import CannySettings, canny_edges
from ..synth import world
from .autoencoder import to_pixels

Condition = Literal["canny", "silhouette"]
CHUNK = 50


@dataclass(frozen=True, kw_only=True)
class Compositions:
    """What training reads; row i of each belongs together."""

    latents: Tensor
    """N 4 16 16, float16."""
    tokens: Tensor
    """N 16, int64."""
    canny: Tensor
    """N 128 16 uint8: rows of packed bits."""
    silhouette: Tensor
    """N 128 16 uint8: rows of packed bits."""

    def hints(self, condition: Condition, rows: Tensor) -> Tensor:
        """The hints of these rows: B 3 128 128, 0 or 1."""
        packed = {"canny": self.canny, "silhouette": self.silhouette}[condition][rows]
        bits = torch.from_numpy(np.unpackbits(packed.numpy(), axis=-1)).float()
        return bits[:, None].expand(-1, 3, -1, -1).contiguous()


def showing_things(tokens: Tensor, text_encoder: WordTextEncoder) -> Tensor:
    """Row numbers of compositions that show things, not patterns (whose silhouette means little)."""
    pattern = text_encoder.numbers["pattern"]
    return torch.nonzero(~(tokens == pattern).any(dim=1))[:, 0]


@torch.inference_mode()
def build(autoencoder: Autoencoder, first_seed: int, count: int) -> Compositions:
    """Draw and encode `count` compositions."""
    tokenizer = WordTextEncoder(world.vocabulary())
    latents, tokens, canny, silhouette = [], [], [], []
    for start in tqdm(range(0, count, CHUNK), desc="encode", mininterval=5):
        chunk = list(world.compositions(first_seed + start, min(CHUNK, count - start)))
        images = np.stack([c.image for c in chunk])
        with torch.autocast("cpu", torch.bfloat16):
            latents.append((autoencoder.encode(to_pixels(images)) * SCALING_FACTOR).half())
        tokens.append(torch.tensor([tokenizer.tokenize(c.caption) for c in chunk]))
        canny += [np.packbits(canny_edges(image, CannySettings()) > 127, axis=-1) for image in images]
        silhouette += [np.packbits(c.silhouette > 127, axis=-1) for c in chunk]
    return Compositions(
        latents=torch.cat(latents),
        tokens=torch.cat(tokens),
        canny=torch.from_numpy(np.stack(canny)),
        silhouette=torch.from_numpy(np.stack(silhouette)),
    )


def save(compositions: Compositions, path: Path) -> None:
    """Write the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(vars(compositions), path)


def load(path: Path) -> Compositions:
    """Read a cache that `save` wrote."""
    return Compositions(**load_file(path))


def load_or_build(path: Path, autoencoder: Autoencoder, count: int) -> Compositions:
    """Read the cache at `path`, or make it from seed 0 on."""
    if not path.is_file():
        save(build(autoencoder, 0, count), path)
    return load(path)
