"""Reading the embedded base's text encoder, whose file carries its vocabulary."""

from __future__ import annotations

import json

from ..errors import CheckpointError
from ..networks.backend import Backend
from ..networks.text_encoder import UNKNOWN, WordTextEncoder
from .checkpoint import Checkpoint, load_strictly


def load_text_encoder(checkpoint: Checkpoint, backend: Backend | None = None) -> WordTextEncoder:
    """The encoder with its weights; CheckpointError when the vocabulary is missing or does not fit the tensors."""
    table, vocabulary = checkpoint.tensors.get("words"), read_vocabulary(checkpoint.metadata.get("vocabulary", ""))
    if table is None or not vocabulary or len(table) != len(vocabulary) + UNKNOWN + 1:
        name = checkpoint.path.name
        raise CheckpointError(f"{name} is not a text encoder of the embedded base: it has no fitting vocabulary.")
    depth = sum(name.endswith(".attn.to_q.weight") for name in checkpoint.tensors)
    encoder = WordTextEncoder(vocabulary, backend, width=table.shape[1], depth=depth)
    load_strictly(encoder, checkpoint.tensors, name=checkpoint.path.name)
    return encoder


def read_vocabulary(text: str) -> list[str]:
    """The words in a JSON list; none when it is anything else."""
    try:
        words: object = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [str(word) for word in words] if isinstance(words, list) else []
