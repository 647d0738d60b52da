"""A program in two processes that talk to each other by gloo, as `accelerate launch` starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

BEGIN = """
import sys
sys.path[:0] = {paths!r}
import conftest
from pathlib import Path
"""


def free_port() -> int:
    """Of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def two_processes(program: str, *arguments: str) -> list[str]:
    """Run it in both, on the CPU; their outputs. Both have to succeed."""
    return launched(program, *arguments, environment={"ACCELERATE_USE_CPU": "yes"})


def launched(program: str, *arguments: str, environment: Mapping[str, str]) -> list[str]:
    """Run it in both, with the tests' modules at hand; their outputs. Both have to succeed."""
    tests = Path(__file__).resolve().parents[1]
    begin = BEGIN.format(paths=[str(tests), str(tests / "lib"), str(tests.parent / "scripts")])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", begin + program, *arguments],
            env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    outputs = [process.communicate(timeout=280)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return outputs
