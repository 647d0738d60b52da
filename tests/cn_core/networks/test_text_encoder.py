"""The word-level text encoder: tokens, unknown words, and that word order matters."""

import torch
from controlnet_kit.cn_core.networks.text_encoder import LENGTH, PADDING, UNKNOWN, WordTextEncoder

ENCODER = WordTextEncoder(["red", "car", "on", "blue", "background"])


def test_words_become_numbers_padded_and_cut() -> None:
    assert ENCODER.tokenize("Red CAR, on a blue background!")[:7] == [2, 3, 4, UNKNOWN, 5, 6, PADDING]
    assert len(ENCODER.tokenize("")) == len(ENCODER.tokenize("red " * 50)) == LENGTH


def test_unknown_words_are_named() -> None:
    assert ENCODER.unknown_words("red zeppelin on blue lawn") == ["zeppelin", "lawn"]


def test_order_matters_and_rows_do_not_mix() -> None:
    tokens = torch.tensor([ENCODER.tokenize(t) for t in ("red car on blue background", "blue car on red background")])
    with torch.no_grad():
        both = ENCODER(tokens)
        assert both.shape == (2, LENGTH, 64)
        assert not torch.allclose(both[0], both[1])
        torch.testing.assert_close(ENCODER(tokens[1:]), both[1:])
