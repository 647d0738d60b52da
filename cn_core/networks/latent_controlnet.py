"""The base ControlNet of CtrLoRA (Xu et al., arXiv 2410.09400): the hint is a latent, and all that the network sees.

Its hint encoder is the model's VAE, whose latent takes the place of the noisy one at the first layer: what it outputs
depends on hint, timestep and text, not on the picture that is being made.

Shapes: B batch, C channels, H W latent, M text tokens, D their width.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..modulation.residuals import Residuals
from .backend import Backend
from .config import UNetConfig
from .controlnet import ControlNet


class LatentControlNet(ControlNet):
    """A ControlNet without hint encoder and without noisy latent."""

    def __init__(self, config: UNetConfig, backend: Backend | None = None) -> None:
        super().__init__(config, backend)
        self.input_hint_block = nn.Sequential()

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        hint_features: Tensor,
        y: Tensor | None = None,
        type_embedding: Tensor | None = None,
    ) -> Residuals:
        """As any ControlNet, but hint_features is the hint's latent (B or 1 rows, C H W, scaled as the model's latents
        are), and x counts for its B only.
        """
        latent = hint_features.expand(x.shape[0], -1, -1, -1)
        return super().forward(latent, timesteps, context, hint_features.new_zeros(()), y, type_embedding)
