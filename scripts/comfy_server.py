"""A real ComfyUI server process with this checkout as one of its packs, for the demo, the tests and the benchmarks."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PACK = "comfyui-controlnet-kit"
EXTRA_PATHS = "extra_model_paths.yaml"
FOLDERS = ("custom_nodes", "models/controlnet", "input", "output", "temp", "user/default")


class ServerError(RuntimeError):
    """The server did not start or died; the message ends with the last lines of its log."""


@dataclass(frozen=True, kw_only=True)
class ComfyServer:
    """A running server."""

    url: str
    base: Path
    """Its base directory: custom_nodes, models, input, output, user."""
    log: Path
    pid: int


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A ComfyUI folder and its interpreter."""

    comfyui: Path
    python: Path

    @classmethod
    def from_environment(cls) -> Installation:
        """What scripts/bootstrap.py put into COMFYUI_PATH and COMFYUI_PYTHON; raises ServerError without them."""
        try:
            return cls(comfyui=Path(os.environ["COMFYUI_PATH"]), python=Path(os.environ["COMFYUI_PYTHON"]))
        except KeyError as error:
            raise ServerError(
                f"{error.args[0]} is not set; run this through `make` or scripts/bootstrap.py."
            ) from error

    def command(self, base: Path, *options: str) -> list[str]:
        """The command line of a server on `base` that opens no browser and talks to nobody."""
        quiet = ("--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:")
        device = () if has_nvidia_gpu() else ("--cpu",)
        extra = ("--extra-model-paths-config", str(base / EXTRA_PATHS)) if (base / EXTRA_PATHS).exists() else ()
        return [str(self.python), "main.py", "--base-directory", str(base), *quiet, *device, *extra, *options]


def has_nvidia_gpu() -> bool:
    """Whether the driver lists a GPU (asked without importing torch, which takes seconds)."""
    if shutil.which("nvidia-smi") is None:
        return False
    return b"GPU" in subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).stdout


def host_environment() -> dict[str, str]:
    """Our environment without what would change the host, and one thread: faster for the tiny models."""
    foreign = ("PYTHONPATH", "COMFYUI_PATH", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    return {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **environment, "PYTHONUNBUFFERED": "1"}


def make_base_directory(base: Path, *, with_pack: bool = True) -> None:
    """Fill `base` with the host's folders, and the pack as a link (it brings its ControlNets along).

    The weights of preprocessors that scripts/bootstrap.py fetched are named as users name folders of theirs.
    """
    for folder in FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    if weights := os.environ.get("CONTROLNET_KIT_WEIGHTS"):
        paths = {"controlnet_kit": {"controlnet_preprocessors": weights}}
        (base / EXTRA_PATHS).write_text(json.dumps(paths))  # JSON is YAML
    if with_pack:
        (base / "custom_nodes" / PACK).symlink_to(CHECKOUT)


@contextlib.contextmanager
def comfy_server(
    base: Path, installation: Installation, environment: Mapping[str, str] | None = None
) -> Generator[ComfyServer]:
    """Start a server on `base` (made with `make_base_directory`), wait until it answers, and always stop it.

    Raises ServerError with the log's last lines when it does not answer within two minutes.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = base / "server.log"
    command = installation.command(base, "--listen", "127.0.0.1", "--port", str(port))
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=installation.comfyui,
            env={**host_environment(), **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(f"{url}/queue", process, log)
        yield ComfyServer(url=url, base=base, log=log, pid=process.pid)
    finally:
        _stop(process)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"ComfyUI ended with status {process.returncode} while starting:\n{log_tail(log)}")
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise ServerError(f"ComfyUI did not answer within {seconds:.0f} s:\n{log_tail(log)}")


def _die_with_parent() -> None:
    """Even when we are killed, the kernel ends the server (prctl's PR_SET_PDEATHSIG is 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def log_tail(log: Path, lines: int = 30) -> str:
    """The last lines of a server's log, without Python's import times."""
    text = log.read_text(errors="replace").splitlines()
    return "\n".join([line for line in text if not line.startswith("import time:")][-lines:])
