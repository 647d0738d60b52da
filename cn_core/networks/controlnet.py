"""The trainable copy: the UNet's encoder once more, fed with the hint, and a zero convolution on each output.

Shapes: B batch, C channels, H W latent, M text tokens, D their width. Hints are B 3 8H 8W, RGB in [0, 1].
Submodules are named as in LDM, so released files load without renaming.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..modulation.residuals import Residuals
from .backend import Backend
from .config import UNetConfig
from .hint_encoder import HintEncoderKind, hint_encoder, initialise_
from .unet import Embedder, UNet, input_blocks, middle_block
from .zero_conv import zero_, zero_conv


class ControlNet(Embedder):
    """Residuals for a UNet of the same configuration (paper, figure 3)."""

    def __init__(
        self,
        config: UNetConfig,
        backend: Backend | None = None,
        *,
        hint_channels: int = 3,
        hint_encoder_kind: HintEncoderKind = "released",
    ) -> None:
        backend = backend or Backend()
        super().__init__(config, backend)
        self.hint_encoder_kind: HintEncoderKind = hint_encoder_kind
        self.input_hint_block = hint_encoder(hint_encoder_kind, hint_channels, config.model_channels, backend)
        self.input_blocks = input_blocks(config, backend)
        self.zero_convs = nn.ModuleList(zero_conv(channels, backend) for channels in config.skip_channels())
        self.middle_block = middle_block(config, backend)
        self.middle_block_out = zero_conv(config.middle_channels, backend)

    @classmethod
    def from_unet(cls, unet: UNet, *, hint_encoder_kind: HintEncoderKind = "released") -> ControlNet:
        """A ControlNet ready to train: copies of the encoder's weights, zero convolutions at zero.

        Its output is exactly zero, and no tensor is shared with `unet`.
        """
        parameter = next(unet.parameters())
        backend = Backend(dtype=parameter.dtype, device=parameter.device)
        control = cls(unet.config, backend, hint_encoder_kind=hint_encoder_kind)
        initialise_(control.input_hint_block)
        control.copy_(unet)
        return control

    def copy_(self, unet: UNet) -> None:
        """Take over the encoder's weights and set zero convolutions to zero, in place."""
        self.load_state_dict(unet.state_dict(), strict=False)
        zero_(self.zero_convs)
        zero_(self.middle_block_out)

    def encode_hint(self, hint: Tensor) -> Tensor:
        """c_f = E(c_i): B 3 8H 8W -> B C H W. Does not depend on the timestep, so once per picture is enough."""
        return self.input_hint_block(hint)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        hint_features: Tensor,
        y: Tensor | None = None,
        type_embedding: Tensor | None = None,
    ) -> Residuals:
        """x is B C H W, timesteps B, context B M D, hint_features as from `encode_hint` (B or 1 rows).

        `type_embedding` is for union networks, see `union`.
        """
        emb = self.embed(x, timesteps, y, type_embedding)
        h = x
        down: list[Tensor] = []
        for index, (block, zero) in enumerate(zip(self.input_blocks, self.zero_convs, strict=True)):
            h = block(h, emb, context)
            if index == 0:
                h = h + hint_features
            down.append(zero(h))
        return Residuals(down=tuple(down), mid=self.middle_block_out(self.middle_block(h, emb, context)))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype
