"""The tiny world as `Samples`: the embedded base's compositions, cached in one file.

Shapes: B pairs, N compositions; latents are B 4 16 16, hints B 3 128 128.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...cn_core.networks.text_encoder import PADDING, UNKNOWN, WordTextEncoder
from ..samples import Batch
from .cache import Compositions, Condition, showing_things


@dataclass(frozen=True, kw_only=True)
class TinySamples:
    """See `Samples`."""

    compositions: Compositions
    condition: Condition
    text_encoder: WordTextEncoder
    numbers: Tensor
    """Row -> composition."""
    kept: Tensor
    """Rows that are held out -> composition."""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def sha256(self) -> str:
        """Of what is trained on."""
        digest = hashlib.sha256(self.condition.encode())
        for tensor in (self.numbers, *vars(self.compositions).values()):
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def sizes(self) -> Mapping[tuple[int, int], Tensor]:
        """One size."""
        _, height, width = self.latent_shape(0)
        return {(height, width): torch.arange(len(self))}

    @property
    def held_out(self) -> TinySamples:
        """Rows at the end of the cache."""
        return replace(self, numbers=self.kept, kept=self.kept[:0])

    def latent_shape(self, row: int) -> tuple[int, int, int]:  # noqa: ARG002, all rows are alike
        """C h w."""
        channels, height, width = self.compositions.latents.shape[1:]
        return channels, height, width

    def caption(self, row: int) -> str:
        """The words that the encoder knows."""
        tokens = self.compositions.tokens[self.numbers[row]].tolist()
        return " ".join(self.text_encoder.vocabulary[token - UNKNOWN - 1] for token in tokens if token > UNKNOWN)

    def key(self, row: int) -> str:
        """Its number: nothing is drawn for its hint."""
        return str(row)

    @torch.no_grad()
    def batch(self, rows: Tensor, posterior_noise: Tensor, dropped: Tensor) -> Batch:  # noqa: ARG002, no posterior
        """The autoencoder is deterministic, so the posterior noise changes nothing."""
        numbers = self.numbers[rows]
        tokens = torch.where(dropped[:, None], PADDING, self.compositions.tokens[numbers])
        return Batch(
            latents=self.compositions.latents[numbers].float(),
            hint=self.compositions.hints(self.condition, numbers),
            context=self.text_encoder(tokens),
            y=None,
            rows=rows,
        )


def samples(
    compositions: Compositions, condition: Condition, text_encoder: WordTextEncoder, held_out: float = 0
) -> TinySamples:
    """Rows of one condition; `held_out` is a share below 1, or a count."""
    everything = torch.arange(len(compositions.latents))
    rows = everything if condition == "canny" else showing_things(compositions.tokens, text_encoder)
    count = min(round(held_out * len(rows)) if held_out < 1 else int(held_out), len(rows) - 1)
    return TinySamples(
        compositions=compositions,
        condition=condition,
        text_encoder=text_encoder,
        numbers=rows[: len(rows) - count],
        kept=rows[len(rows) - count :],
    )
