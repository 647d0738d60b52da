"""The embedded base's autoencoder: SD's latent shape (4 channels at 1/8) from a few residual convolutions.

It has no normalisation layers: in pictures of flat colours they would erase what matters.

Shapes: B batch, H W pixels (multiples of 8), C channels. Pictures are RGB in [-1, 1].
"""

from __future__ import annotations

from torch import Tensor, nn

from .backend import Backend

WIDTHS = (64, 96, 128)
"""Channels at 1/2, 1/4 and 1/8 of the picture's size."""
LATENT_CHANNELS = 4
SCALING_FACTOR = 0.18215
"""SD's: what `encode` returns has a standard deviation of 1 / 0.18215."""


class ResidualConvolutions(nn.Module):
    """x + conv(silu(conv(silu(x)))): B C H W."""

    def __init__(self, channels: int, backend: Backend) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.SiLU(), backend.conv2d(channels, channels, 3), nn.SiLU(), backend.conv2d(channels, channels, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x is B C H W."""
        return x + self.layers(x)


class Autoencoder(nn.Module):
    """B 3 H W <-> B 4 H/8 W/8."""

    def __init__(self, backend: Backend | None = None, *, encoder_blocks: int = 1, decoder_blocks: int = 2) -> None:
        super().__init__()
        backend = backend or Backend()
        half, quarter, eighth = WIDTHS
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            backend.conv2d(3 * 4, half, 3),
            *(ResidualConvolutions(half, backend) for _ in range(encoder_blocks)),
            backend.conv2d(half, quarter, 3, stride=2),
            *(ResidualConvolutions(quarter, backend) for _ in range(encoder_blocks)),
            backend.conv2d(quarter, eighth, 3, stride=2),
            *(ResidualConvolutions(eighth, backend) for _ in range(encoder_blocks)),
            nn.SiLU(),
        )
        self.to_latent = backend.conv2d(eighth, LATENT_CHANNELS, 1)
        self.from_latent = backend.conv2d(LATENT_CHANNELS, eighth, 1)
        self.decoder = nn.Sequential(
            backend.conv2d(eighth, eighth, 3),
            *(ResidualConvolutions(eighth, backend) for _ in range(decoder_blocks)),
            backend.conv2d(eighth, 4 * quarter, 3),
            nn.PixelShuffle(2),
            *(ResidualConvolutions(quarter, backend) for _ in range(decoder_blocks)),
            backend.conv2d(quarter, 4 * half, 3),
            nn.PixelShuffle(2),
            *(ResidualConvolutions(half, backend) for _ in range(decoder_blocks)),
            nn.SiLU(),
            backend.conv2d(half, 3 * 4, 3),
            nn.PixelShuffle(2),
        )

    def encode(self, pixels: Tensor) -> Tensor:
        """B 3 H W in [-1, 1] -> B 4 H/8 W/8, deterministic."""
        return self.to_latent(self.encoder(pixels))

    def decode(self, latent: Tensor) -> Tensor:
        """B 4 H/8 W/8 -> B 3 H W, about [-1, 1]."""
        return self.decoder(self.from_latent(latent))
