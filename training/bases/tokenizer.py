"""CLIP's byte-pair tokens, read from a package or a folder: no hub is asked.

Shapes: B captions, M = 77 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...cn_core.errors import ControlNetKitError

START, END = 49406, 49407
WINDOW = 77
"""Tokens that the text encoders see, start and end among them."""


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Captions to rows of token numbers."""

    numbers: Callable[[str], list[int]]
    """The tokens of a caption alone."""
    start: int = START
    end: int = END
    pad: int = END
    window: int = WINDOW

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """B M int64: start, the caption as far as there is room, end, padding."""
        rows = [[self.start, *self.numbers(caption)[: self.window - 2], self.end] for caption in captions]
        return torch.tensor([[*row, *[self.pad] * (self.window - len(row))] for row in rows])

    def fits(self, caption: str) -> bool:
        """Whether the text encoder sees all tokens of a caption."""
        return len(self.numbers(caption)) <= self.window - 2


def from_package(*, pad: int) -> Tokenizer:
    """The vocabulary that the package open_clip_torch carries. `pad`: END for CLIP-L, 0 for the OpenCLIP encoders."""
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError as error:
        raise ControlNetKitError(
            "A single-file base carries no tokenizer, and the package that has CLIP's is missing: "
            "pip install open_clip_torch, or set base.tokenizer to a folder with vocab.json and merges.txt."
        ) from error
    return Tokenizer(numbers=SimpleTokenizer().encode, pad=pad)


def files(folder: Path) -> list[Path]:
    """What tells a tokenizer in a folder from another one, in order."""
    return sorted(file for file in folder.glob("*") if file.suffix in (".json", ".txt") and file.is_file())


def from_folder(folder: Path, *, pad: int | None = None) -> Tokenizer:
    """A tokenizer folder as transformers writes it: tokenizer.json, or vocab.json and merges.txt."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ControlNetKitError(
            f"{folder} holds no tokenizer ({str(error).splitlines()[0]}); a folder with vocab.json and merges.txt, or "
            "with tokenizer.json, was expected."
        ) from error

    def numbers(caption: str) -> list[int]:
        return tokenizer(caption, add_special_tokens=False, verbose=False)["input_ids"]

    return Tokenizer(
        numbers=numbers,
        start=tokenizer.bos_token_id,
        end=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id if pad is None else pad,
        window=min(tokenizer.model_max_length, WINDOW),
    )
