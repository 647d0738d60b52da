"""Networks of the library transformers from folders as Hugging Face repositories have them: a configuration and
safetensors, nothing else, and nothing from the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from ...errors import WeightsError
from ..weights import Hub, Weights

PACKAGES = ("transformers",)
FILES = ("config.json", "model.safetensors")
WRONG = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, SafetensorError)
"""What transformers was seen to raise for files that are damaged, missing or of another network."""


def repository(repo: str, licence: str) -> tuple[Weights, ...]:
    """The two files of a repository, in a folder of its name."""
    folder = repo.rpartition("/")[2]
    return tuple(
        Weights(file=f"{folder}/{file}", size=0, sha256=None, licence=licence, origin=Hub(repo=repo, file=file))
        for file in FILES
    )


def from_folder(network: Any, paths: tuple[Path, ...]) -> nn.Module:
    """A model class of transformers with the weights beside its config.json: float32, eval mode, no gradients.

    Raises WeightsError for files that are damaged, in different folders, or not all of this network's.
    """
    folder = paths[0].parent
    if any(path.parent != folder for path in paths):
        raise WeightsError(f"{' and '.join(map(str, paths))} belong into one folder; put them into {folder}.")
    try:
        loaded, report = network.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except WRONG as error:
        raise WeightsError(f"{folder} holds no {network.__name__} that transformers can load: {error}") from error
    if wrong := [str(key) for kind in ("missing_keys", "mismatched_keys") for key in sorted(report[kind])]:
        raise WeightsError(
            f"{paths[-1]} does not fit {network.__name__} as {paths[0].name} describes it: {len(wrong)} weights are "
            f"missing or of another shape, such as {wrong[0]}. Get both files from the same place again."
        )
    return loaded.float().eval().requires_grad_(False)
