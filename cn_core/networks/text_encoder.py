"""The embedded base's text encoder: one token per word, a small bidirectional transformer over them.

Shapes: B batch, LENGTH = 16 tokens, D = width of the UNet's context.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .attention import CrossAttention, FeedForward
from .backend import Backend

LENGTH = 16
"""Tokens per text; longer texts are cut, shorter ones padded."""
PADDING, UNKNOWN = 0, 1
"""Token numbers before those of the vocabulary."""


def split_words(text: str) -> list[str]:
    """Lower-case words of `text`, punctuation dropped."""
    return re.findall(r"[a-z]+", text.lower())


class TextBlock(nn.Module):
    """Self-attention and feed-forward, each on normalised input, each added to it."""

    def __init__(self, width: int, heads: int, backend: Backend) -> None:
        super().__init__()
        self.norm1, self.norm2 = backend.layer_norm(width), backend.layer_norm(width)
        self.attn = CrossAttention(width, width, heads, backend)
        self.ff = FeedForward(width, backend)

    def forward(self, x: Tensor) -> Tensor:
        """x is B LENGTH D."""
        n = self.norm1(x)
        x = x + self.attn(n, n)
        return x + self.ff(self.norm2(x))


class WordTextEncoder(nn.Module):
    """Words of a fixed vocabulary -> B LENGTH D."""

    def __init__(
        self, vocabulary: Sequence[str], backend: Backend | None = None, *, width: int = 64, depth: int = 2
    ) -> None:
        super().__init__()
        backend = backend or Backend()
        self.vocabulary = tuple(vocabulary)
        self.numbers = {word: number for number, word in enumerate(self.vocabulary, start=UNKNOWN + 1)}
        rows = len(self.vocabulary) + UNKNOWN + 1
        self.words = nn.Parameter(torch.randn(rows, width, dtype=backend.dtype, device=backend.device))
        self.positions = nn.Parameter(torch.randn(LENGTH, width, dtype=backend.dtype, device=backend.device) * 0.3)
        self.blocks = nn.ModuleList(TextBlock(width, max(width // 32, 1), backend) for _ in range(depth))
        self.norm = backend.layer_norm(width)

    def tokenize(self, text: str) -> list[int]:
        """LENGTH token numbers: known words, UNKNOWN for the others, PADDING at the end."""
        numbers = [self.numbers.get(word, UNKNOWN) for word in split_words(text)][:LENGTH]
        return numbers + [PADDING] * (LENGTH - len(numbers))

    def unknown_words(self, text: str) -> list[str]:
        """The words of `text` that the encoder has never seen, in order."""
        return [word for word in split_words(text) if word not in self.numbers]

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens is B LENGTH, int64."""
        x = self.words[tokens] + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
