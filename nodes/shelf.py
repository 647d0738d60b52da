"""`Shelf`: loaded detectors between queue runs, and the hints that they made of single pictures.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from torch import Tensor, nn

from ..cn_core.preprocess.frame_cache import FrameCache
from ..cn_core.preprocess.learned.detector import Detector, LearnedPreprocessor
from ..cn_core.preprocess.settings import Settings
from ..cn_core.preprocess.weights import locate

WEIGHTS = "controlnet_preprocessors"
"""The folder below models/, and its name in extra_model_paths.yaml."""
CAPACITY = 2 * 2**30
"""Bytes of weights in main memory; the detector used last stays whatever its size."""
HINTS_CAPACITY = 2**30
BATCH_PIXELS = 2**20
"""What a GPU is given at once, and at least one picture. A CPU gets one by one: it is no faster with more."""
BYTES_PER_PIXEL = 2**10
"""A generous guess at what networks need for a pixel of the pictures."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A detector with what the host knows of it."""

    detector: Detector
    patcher: comfy.model_patcher.ModelPatcher | None
    """Holds the detector's networks for the host; None: it has none, and runs on the CPU."""
    size: int
    """Bytes of its files."""


class Shelf:
    """Least recently used detectors go when there are more than `capacity` bytes of them.

    Their networks are in the host's memory management: it takes them off the GPU when it needs the room, and the next
    run moves them back there without reading a file.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.loaded: OrderedDict[Hashable, Loaded] = OrderedDict()
        self.hints = FrameCache(HINTS_CAPACITY)

    def detector(self, entry: LearnedPreprocessor[Any], settings: Settings, *, pixels: int = 0) -> Loaded:
        """Of the table, ready to run on `pixels` at once.

        Raises what `LearnedPreprocessor.open` does for packages and files that are missing.
        """
        key = (entry.name, contents(entry, settings))
        if key not in self.loaded:
            self.loaded[key] = load(entry, settings)
        self.loaded.move_to_end(key)
        while len(self.loaded) > 1 and sum(one.size for one in self.loaded.values()) > self.capacity:
            self.loaded.popitem(last=False)
        found = self.loaded[key]
        if found.patcher is not None:
            comfy.model_management.load_models_gpu([found.patcher], memory_required=pixels * BYTES_PER_PIXEL)
        return found

    def run(self, entry: LearnedPreprocessor[Any], images: Tensor, settings: Settings) -> Tensor:
        """B 3 H W float32 in [0, 1] -> B 3 H W on the same device; what it knows from before is not made again."""

        def make(fresh: Tensor) -> Tensor:
            found = self.detector(entry, settings, pixels=fresh[:, 0].numel())
            detector: Any = found.detector
            return (detector.raw if entry.together else detector)(fresh.to(device_of(found)), settings).to(fresh.device)

        hints = self.each(images, (entry.name, settings, contents(entry, settings)), make)
        return entry.together(hints, settings) if entry.together else hints

    def each(self, images: Tensor, key: Hashable, make: Callable[[Tensor], Tensor]) -> Tensor:
        """B 3 H W -> what `make` gives, B ...; it gets only the pictures that it did not see under this key.

        Shows its progress, and stops between pictures when the user cancels; what was done by then is kept.
        """
        progress, results = comfy.utils.ProgressBar(len(images)), list[Tensor]()
        for part in images.split(at_once(*images.shape[2:])):
            comfy.model_management.throw_exception_if_processing_interrupted()
            results.append(self.hints.run(part, key, make))
            progress.update(len(part))
        return torch.cat(results)


def weights_folders() -> tuple[Path, ...]:
    """Where the user keeps them."""
    return tuple(map(Path, folder_paths.get_folder_paths(WEIGHTS)))


def contents(entry: LearnedPreprocessor[Any], settings: Settings) -> tuple[Hashable, ...]:
    """The files that the settings need, with what changes when one is replaced: its path, size and time."""
    found = [(file, locate(file, weights_folders())) for file in entry.files(settings)]
    return tuple((file, path, path and (path.stat().st_size, path.stat().st_mtime_ns)) for file, path in found)


def at_once(height: int, width: int) -> int:
    """How many pictures of a size a network gets."""
    on_cpu = comfy.model_management.is_device_cpu(comfy.model_management.get_torch_device())
    return 1 if on_cpu else max(BATCH_PIXELS // (height * width), 1)


def device_of(loaded: Loaded) -> torch.device:
    """Where it wants its pictures."""
    return torch.device("cpu") if loaded.patcher is None else loaded.patcher.load_device


def load(entry: LearnedPreprocessor[Any], settings: Settings) -> Loaded:
    """From its files, in half precision where the host would on this device."""
    folders = weights_folders()
    detector = entry.open(folders, settings)
    size = sum(path.stat().st_size for file in entry.files(settings) if (path := locate(file, folders)))
    if not detector.modules:
        return Loaded(detector=detector, patcher=None, size=size)
    device = comfy.model_management.get_torch_device()
    networks = nn.ModuleList(detector.modules)
    if entry.half and comfy.model_management.should_use_fp16(device):
        networks.half()
    patcher = comfy.model_patcher.CoreModelPatcher(
        networks, load_device=device, offload_device=comfy.model_management.unet_offload_device()
    )
    return Loaded(detector=detector, patcher=patcher, size=size)
