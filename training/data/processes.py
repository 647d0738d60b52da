"""Work in parallel, one process for each core."""

from __future__ import annotations

import os
import runpy
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

FIRST = Path(__file__).with_name("child_process.py")


def processes(workers: int) -> ProcessPoolExecutor:
    """A pool; 0: one process for each core. They start afresh, since copies of a process with threads can hang."""
    return ProcessPoolExecutor(
        workers or os.cpu_count(), mp_context=get_context("spawn"), initializer=runpy.run_path, initargs=(str(FIRST),)
    )


def keep_to_one_thread() -> None:
    """For a process that is one of as many as there are cores."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
