"""Work in parallel, one process for each core."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def processes(workers: int) -> ProcessPoolExecutor:
    """A pool; 0: one process for each core. On Linux they start as copies, which knows all that is imported."""
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    return ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context, initializer=alone)


def alone() -> None:
    """A process with one thread, since there is one for each core."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
