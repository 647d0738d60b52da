"""ControlNet-Union and ProMax: one network for many types of hint, and for several hints at a time.

Source: xinsir's ControlNetPlus, which has no paper. To a ControlNet it adds two things. Every hint's features get a
bias per channel, derived by a small transformer from their mean and from an embedding of the hint's type; their sum is
what enters the network. And the set of types is embedded and added to the timestep's embedding.

The transformer never sees two hints together: the released network hands (batch, hints, channels) to an attention that
takes the batch to come second, and so compares the rows of the batch. These hold the same hints, one for each prompt,
and attention over equal tokens is their value. So there is no softmax here, and rows depend neither on each other nor
on the timestep.

Shapes: B batch, C the UNet's model channels, H W latent, E width of the timestep embedding, N types.
Submodules are named as in the released files (their spelling included), but for `attn.in_proj`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..control_types import names
from ..errors import ControlNetKitError
from .backend import Backend
from .config import UNetConfig
from .controlnet import ControlNet
from .hint_encoder import HintEncoderKind
from .layers import timestep_embedding

SINUSOIDS = 256
"""Width of the sinusoids in which "type i is there" (1 or 0) is written."""


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x) (Hendrycks and Gimpel, arXiv 1606.08415)."""

    def forward(self, x: Tensor) -> Tensor:
        """x has any shape."""
        return x * torch.sigmoid(1.702 * x)


class SingleTokenAttention(nn.Module):
    """Attention of a token to itself alone: the projection of its value."""

    def __init__(self, width: int, backend: Backend) -> None:
        super().__init__()
        self.in_proj = backend.linear(width, 3 * width)
        self.out_proj = backend.linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x is B C."""
        return self.out_proj(self.in_proj(x).chunk(3, dim=-1)[2])


class UnionBlock(nn.Module):
    """Attention and a two-layer network, each on normalised input, each added to it."""

    def __init__(self, width: int, backend: Backend) -> None:
        super().__init__()
        self.attn = SingleTokenAttention(width, backend)
        self.ln_1, self.ln_2 = backend.layer_norm(width), backend.layer_norm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=backend.linear(width, 4 * width), gelu=QuickGELU(), c_proj=backend.linear(4 * width, width)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """x is B C."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TypeEmbedding(nn.Module):
    """Which of the N types are there -> 1 E."""

    def __init__(self, count: int, width: int, backend: Backend) -> None:
        super().__init__()
        self.count = count
        self.linear_1 = backend.linear(SINUSOIDS * count, width)
        self.linear_2 = backend.linear(width, width)

    def forward(self, control_types: Sequence[int], like: Tensor) -> Tensor:
        """Dtype and device are those of `like`; no types are a set as well, the one for hints of unknown type."""
        there = torch.zeros(self.count, device=like.device)
        there[list(control_types)] = 1.0
        sinusoids = timestep_embedding(there, SINUSOIDS).to(like.dtype).reshape(1, -1)
        return self.linear_2(F.silu(self.linear_1(sinusoids)))


class UnionControlNet(ControlNet):
    """A ControlNet whose `forward` takes both results of `encode_hints`."""

    def __init__(
        self,
        config: UNetConfig,
        backend: Backend | None = None,
        *,
        control_types: int,
        hint_channels: int = 3,
        hint_encoder_kind: HintEncoderKind = "released",
    ) -> None:
        backend = backend or Backend()
        super().__init__(config, backend, hint_channels=hint_channels, hint_encoder_kind=hint_encoder_kind)
        width = config.model_channels
        self.control_types = control_types
        self.task_embedding = nn.Parameter(
            torch.zeros(control_types, width, dtype=backend.dtype, device=backend.device)
        )
        self.transformer_layes = nn.Sequential(UnionBlock(width, backend))
        self.spatial_ch_projs = backend.linear(width, width)
        self.control_add_embedding = TypeEmbedding(control_types, config.time_embed_dim, backend)

    def encode_hints(self, hints: Sequence[Tensor], control_types: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Several hints (each B or 1 rows, 3 8H 8W in [0, 1]) and the type of each -> `forward`'s hint_features
        (B or 1 rows, C H W) and type_embedding (1 E). They do not depend on the timestep: once per hint is enough.

        A single hint may come without a type: then it is encoded as by any ControlNet. Raises ControlNetKitError for
        several hints without, for unequal numbers of both, and for types that this network lacks.
        """
        self.check_types(len(hints), control_types)
        if control_types:
            features = reduce(torch.add, map(self.encode_typed, hints, control_types))
        else:
            features = self.encode_hint(hints[0])
        return features, self.control_add_embedding(control_types, features)

    def encode_typed(self, hint: Tensor, control_type: int) -> Tensor:
        """One hint's features with their bias: B 3 8H 8W -> B C H W."""
        features = self.encode_hint(hint)
        token = features.mean(dim=(2, 3)) + self.task_embedding[control_type].to(features)  # B C
        bias = self.spatial_ch_projs(self.transformer_layes(token))
        return features + bias[:, :, None, None]

    def check_types(self, hints: int, control_types: Sequence[int]) -> None:
        """Raise ControlNetKitError unless `encode_hints` can take this many hints of these types."""
        if len(control_types) not in ((0, 1) if hints == 1 else (max(hints, 1),)):
            raise ControlNetKitError(
                f"A union ControlNet got {hints} hints and {len(control_types)} types. Give each hint its type."
            )
        if lacking := [number for number in control_types if not 0 <= number < self.control_types]:
            known = names("SDXL", self.control_types)
            raise ControlNetKitError(
                f"This union ControlNet has no type {lacking[0]}; it has 0 to {self.control_types - 1} "
                f"({', '.join(known)}). Choose one of them, or load ProMax for tile (6) and repaint (7)."
            )
