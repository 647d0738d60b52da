"""ONNX files that answer with constants, written byte by byte: the package onnx is not needed to run networks.

Fields are numbered as in the format's onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

FLOAT = 1


def varint(value: int) -> bytes:
    """Seven bits to a byte, lowest first."""
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(data)) + data


def value_info(name: str, shape: Iterable[int]) -> bytes:
    dimensions = b"".join(block(1, number(1, one)) for one in shape)
    return block(1, name) + block(2, block(1, number(1, FLOAT) + block(2, dimensions)))


def tensor(name: str, values: np.ndarray) -> bytes:
    dimensions = b"".join(number(1, one) for one in values.shape)
    return dimensions + number(2, FLOAT) + block(8, name) + block(9, values.astype("<f4").tobytes())


def constant_network(input_shape: Sequence[int], outputs: Mapping[str, np.ndarray]) -> bytes:
    """A network that takes "input" and gives these arrays, whatever it is shown."""
    graph = block(2, "constants") + block(11, value_info("input", input_shape))
    for name, values in outputs.items():
        graph += block(1, block(1, f"{name}_value") + block(2, name) + block(4, "Identity"))
        graph += block(5, tensor(f"{name}_value", values)) + block(12, value_info(name, values.shape))
    return number(1, 8) + block(7, graph) + block(8, number(2, 17))
