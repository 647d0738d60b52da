"""Networks in TensorFlow Lite's format, run by LiteRT on the CPU: one picture in, arrays out.

Shapes: H W pixels of a network's input.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import WeightsError
from ..frames import Frame

PACKAGE = "ai-edge-litert"
MOST_THREADS = 4
"""These networks are too small for more."""
Values: TypeAlias = NDArray[np.floating[Any]]


class Network:
    """One network; calls from several threads wait for each other."""

    def __init__(self, path: Path, part: slice = slice(None)) -> None:
        """`part`: the bytes of it in a file that has several. Raises WeightsError for anything else."""
        from ai_edge_litert.interpreter import Interpreter

        content = path.read_bytes()[part]
        try:
            self.interpreter: Any = Interpreter(
                model_content=content, num_threads=min(MOST_THREADS, os.cpu_count() or 1)
            )
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise WeightsError(f"{path} is no network that LiteRT runs: {error}. Fetch it again.") from error
        self.input: int = self.interpreter.get_input_details()[0]["index"]
        self.outputs: list[int] = [one["index"] for one in self.interpreter.get_output_details()]
        self.lock = Lock()

    def __call__(self, picture: Frame) -> tuple[Values, ...]:
        """H W 3 float32 in the network's own range -> its outputs in the file's order, without a batch's dimension."""
        with self.lock:
            self.interpreter.set_tensor(self.input, picture[None])
            self.interpreter.invoke()
            return tuple(self.interpreter.get_tensor(index)[0] for index in self.outputs)
