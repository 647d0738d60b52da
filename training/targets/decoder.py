"""The UNet's decoder as something that is trained as well, late and slowly; and the file that it ships in.

A ControlNet whose decoder was trained needs that decoder: its difference to the base's is a file beside the
ControlNet's, in the form of a LoRA of full rank, `diffusion_model.NAME.diff` for weights and `.diff_b` for biases.
ComfyUI's LoRA loaders add it at strength 1 to the base, or to a model made from it.

Shapes: B pairs, C h w latent, M text tokens, D their width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from ...cn_core.networks.unet import Encoded, UNet, decoded

PREFIX = "diffusion_model."
PARTS = {".weight": ".diff", ".bias": ".diff_b"}
NAMES = ("output_blocks.", "out.")
"""What a UNet's second half is called."""


class Decoder(nn.Module):
    """A trainable copy, in float32."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.output_blocks = copy.deepcopy(unet.output_blocks).float()
        self.out = copy.deepcopy(unet.out).float()

    def forward(self, encoded: Encoded, context: Tensor) -> Tensor:
        """eps or v, B C h w; context is B M D."""
        return decoded(self.output_blocks, self.out, encoded, context)


def original(unet: UNet) -> dict[str, Tensor]:
    """The base's decoder as it came, kept on the CPU: the run may round the base to another dtype.

    Nothing of a base without weights, such as plans are made with.
    """
    weights = ((name, value) for name, value in unet.state_dict().items() if not value.is_meta)
    return {name: value.detach().cpu().clone() for name, value in weights if name.startswith(NAMES)}


def difference(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For a LoRA loader: what is to be added to the base's decoder, of the same names."""
    found: dict[str, Tensor] = {}
    for name, value in now.items():
        stem, dot, part = name.rpartition(".")
        found[f"{PREFIX}{stem}{PARTS[dot + part]}"] = value.detach().cpu().float() - before[name].float()
    return found
